"""Every Hugging Face vision model type that is a plain ViT, small, against transformers itself."""

import pytest

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
