"""The texts that transformers are measured on, made here because the corpus has none in their vocabularies.

``stories``: text that the dense network itself writes, sampled token by token at temperature 1. ``reactions``: SMILES
of reactions of seven common kinds between fragments, drawn by a seed, one token masked. The tokens of rxnmapper's
vocabulary that occur are numbered here; that the numbers are right shows in what the dense network says for a masked
token.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Reactions", "reactions", "stories"]

Array = npt.NDArray[Any]
START = 1
"""The token that a story begins with."""
FIRST_TOKEN, CLASS, SEPARATOR, MASK, PAD = 15, 12, 13, 14, 0
TOKENS = (
    "c C ( ) O 1 2 = N . n 3 F Cl >> ~ - 4 [C@H] S [C@@H] [O-] Br # / [nH] [N+] s 5 o P [Na+] [Si] I [Na] [Pd] [K+] "
    "[K] [P] B"
)
SPLIT = re.compile(r"\[[^\]]+\]|Br|Cl|>>|.")
ARYLS = (
    "c1ccccc1 c1ccc(F)cc1 c1ccc(Cl)cc1 c1ccc(OC)cc1 c1cccc(C)c1 c1ccncc1 c1cccnc1 c1ccc(C#N)cc1 c1ccc2ccccc2c1 "
    "c1ccc(C(F)(F)F)cc1 c1cccs1 c1ccco1 c1ccc(C(=O)OC)cc1 c1ccc([N+](=O)[O-])cc1 c1cnc(N)nc1 c1ccc(N(C)C)cc1"
)
ALKYLS = "C CC CCC CC(C)C CCCC C1CCCCC1 C1CC1 CCOC CC(F)(F)F C1CCOCC1 CCc1ccccc1 Cc1ccccc1 CCN(C)C CCCl CC#N"
"""Fragments that are bound by their first atom."""
KINDS = (
    "OC(=O){a}.N{b}>>O=C(N{b}){a}",
    "O=C(Cl){a}.O{b}>>O=C(O{b}){a}",
    "O=C{a}.N{b}>>C(N{b}){a}",
    "O{a}.Br{b}>>O({b}){a}",
    "CC(C)(C)OC(=O)N{b}>>N{b}",
    "CCOC(=O){a}>>OC(=O){a}",
)
"""Amide, ester, reductive amination, ether, removal of Boc, hydrolysis; the seventh is Suzuki coupling."""


@dataclass(frozen=True, slots=True)
class Reactions:
    """Reactions with one token masked: tokens (n, length), which of them count, and where and what was masked."""

    tokens: Array
    attention: Array
    place: Array
    truth: Array

    def __len__(self) -> int:
        return len(self.tokens)

    def part(self, which: slice) -> Reactions:
        """Some of them."""
        return Reactions(self.tokens[which], self.attention[which], self.place[which], self.truth[which])

    def feeds(self, size: int) -> list[dict[str, Array]]:
        """What the network takes, in batches."""
        starts = range(0, len(self), size)
        return [
            {"input_ids": self.tokens[i : i + size], "attention_mask": self.attention[i : i + size]} for i in starts
        ]


def reactions(count: int, seed: int) -> Reactions:
    """Return ``count`` different reactions, each with one of its tokens masked."""
    generator = np.random.default_rng(seed)
    known = _all_reactions()
    found = [known[place] for place in generator.permutation(len(known))[:count]]
    numbers = {token: FIRST_TOKEN + place for place, token in enumerate(TOKENS.split())}
    rows = [[CLASS, *(numbers[token] for token in SPLIT.findall(text)), SEPARATOR] for text in found]
    tokens = np.full((count, max(map(len, rows))), PAD, np.int64)
    for place, row in enumerate(rows):
        tokens[place, : len(row)] = row
    attention = (tokens != PAD).astype(np.int64)
    masked = generator.integers(1, attention.sum(1) - 1)
    truth = tokens[np.arange(count), masked].copy()
    tokens[np.arange(count), masked] = MASK
    return Reactions(tokens, attention, masked, truth)


def _all_reactions() -> list[str]:
    """The SMILES of all reactions that can be made of the fragments, each once."""
    aryls, alkyls = ARYLS.split(), ALKYLS.split()
    found = [kind.format(a=a, b=b) for kind in KINDS for a in aryls for b in (*alkyls, *aryls)]
    for first in aryls:
        for second in aryls:
            # in the product the second stands inside the first, whose ring is still open
            inner = second.replace("2", "4").replace("1", "3")
            found.append(f"OB(O){first}.Br{second}>>{first[:2]}(-{inner}){first[2:]}")
    return list(dict.fromkeys(found))


def stories(network: Any, count: int, length: int, seed: int) -> Array:
    """Return tokens (count, length) that ``network``, a session of ONNX Runtime, samples from what it predicts."""
    generator = np.random.default_rng(seed)
    tokens = np.full((count, 1), START, np.int64)
    while tokens.shape[1] < length:
        logits = network.run(None, {network.get_inputs()[0].name: tokens})[0][:, -1].astype(np.float64)
        noise = generator.gumbel(size=logits.shape)
        tokens = np.concatenate([tokens, (logits + noise).argmax(1)[:, None]], axis=1)
    return tokens
