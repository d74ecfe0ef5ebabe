"""The checker behind jaxtyping in tests: beartype with PEP 484's numeric tower, where an int may stand for a float."""

from beartype import BeartypeConf, beartype

typecheck = beartype(conf=BeartypeConf(is_pep484_tower=True))
