"""The commands of the command line, one module each: what they take, what they call, what they print.

Each module has ``NAME`` and a function ``command`` whose parameters are its arguments and options. The work is done by
:mod:`graphprune.api`, imported inside so that ``graphprune --help`` starts at once.
"""
