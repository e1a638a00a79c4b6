"""Contract tests of methods and engines, this project's own and anybody's, and tiny models to run them on.

    from focus import METHOD
    from methods.testing import check_method

    def test_focus() -> None:
        check_method(METHOD)

Nothing here needs pytest; a broken rule raises ContractBroken, one sentence.
"""

from methods.testing.engine_contract import check_engine, check_engine_declarations, check_quantization
from methods.testing.method_contract import check_method, check_method_declarations, check_synthesis
from methods.testing.models import DIGITS_MODELS, blobs, disturbed, seeded, source_of, tiny, untrained
from methods.testing.rules import ContractBroken

__all__ = [
    "DIGITS_MODELS",
    "ContractBroken",
    "blobs",
    "check_engine",
    "check_engine_declarations",
    "check_method",
    "check_method_declarations",
    "check_quantization",
    "check_synthesis",
    "disturbed",
    "seeded",
    "source_of",
    "tiny",
    "untrained",
]
