"""Fourier transforms of ATen: a transformed dimension is read as a whole, everything beside it passes through."""

from __future__ import annotations

from graphprune.rules.aten_layout import dimensions
from graphprune.rules.call import Axes, Call
from graphprune.rules.table import bind

WHOLE = "transformed as a whole"


def transform(call: Call) -> list[Axes | None]:
    """Frequencies or times along ``dim``: the last ``s`` dimensions or all of them by default."""
    x, known = list(call.axes(0)), call.result()
    dims, lengths = call.attribute("dim"), call.attribute("s")
    if dims is None and lengths is not None:
        dims = list(range(-len(lengths), 0))
    for dim in dimensions(dims, len(x)):
        call.pin(x[dim], WHOLE)
        x[dim] = call.fixed(known[dim] if known else None, WHOLE)
    return [tuple(x)]


def short_time(call: Call) -> list[Axes | None]:
    """A signal in its last dimension becomes frequencies and frames (and parts), or these a signal again."""
    x, known = call.axes(0), call.result()
    whole = call.attribute("whole")
    call.pin(x[-whole:], WHOLE)
    batch = x[:-whole]
    made = known[len(batch) :] if known else (None,) * 2
    return [(*batch, *(call.fixed(size, WHOLE) for size in made))]


bind("aten.fft_fft aten.fft_ifft aten.fft_rfft aten.fft_irfft aten.fft_hfft aten.fft_ihfft", transform, "self")
bind("aten.fft_fft2 aten.fft_ifft2 aten.fft_rfft2 aten.fft_irfft2 aten.fft_hfft2 aten.fft_ihfft2", transform, "self")
bind("aten.fft_fftn aten.fft_ifftn aten.fft_rfftn aten.fft_irfftn aten.fft_hfftn aten.fft_ihfftn", transform, "self")
bind("aten.fft_fftshift aten.fft_ifftshift aten._fft_c2c aten._fft_r2c aten._fft_c2r", transform, "self")
bind("aten.stft", short_time, "self", whole=1)
bind("aten.istft", short_time, "self", whole=2)
