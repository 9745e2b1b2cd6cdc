"""Every Hugging Face vision model type that is a plain ViT, small, and its fields drawn at random, against transformers
itself."""

import pytest

from parity_tests.options import sweep
from parity_tests.options_huggingface import KINDS, options_error
from parity_tests.peers import import_transformers
from parity_tests.peers_huggingface import BOUND, MODELS, errors


@pytest.fixture(scope="module")
def transformers():
    try:
        return import_transformers()
    except ImportError as error:
        pytest.skip(f"transformers is not installed (extra 'peers'): {error}")


@pytest.mark.filterwarnings("ignore")  # transformers' own, about itself
@pytest.mark.parametrize("title", MODELS)
def test_both_engines_compute_what_transformers_computes(transformers, title):
    worst = errors(transformers, title)
    assert max(worst.values()) <= BOUND, worst


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_fields_drawn_at_random(transformers, kind):
    found = sweep(lambda seed: options_error(transformers, kind, seed), range(20))
    assert found["cases"] > 10
    assert not found["failed"]
