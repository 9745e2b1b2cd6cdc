"""The source tree: import arrows, twin files and names, docstrings, lengths. Each check is seen to fail."""

import subprocess
from pathlib import Path

import architecture as arch
import pytest

ROOT = Path(__file__).parents[1]
CHECKS = [arch.check_arrows, arch.check_twins, arch.check_reading_order, arch.check_names, arch.check_backwards,
          arch.check_docstrings, arch.check_lengths]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_source_tree_keeps_the_rule(check):
    assert check(ROOT) == []


def tracked_files() -> list[Path]:
    git = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if git.returncode:
        pytest.skip(f"the files of the project are those that git lists, and git says: {git.stderr.strip()}")
    return [path for name in git.stdout.splitlines() if (path := ROOT / name).is_file()]


def test_no_file_names_a_folder_of_one_machine():
    assert arch.check_private_paths(ROOT, tracked_files()) == []


# A tree of two stages that keeps every rule; each case below breaks one.
INIT = 'STAGES = ("scale", "model")\n'
GOOD = {
    "vit_common/__init__.py": "import numpy as np\n\ndef read():\n    import torch\n",
    "vit_common/config.py": "from vit_common import read\n",
    "numpy_vit/__init__.py": INIT,
    "numpy_vit/scale.py": 'def scale_forward(x, factor=2.0, tape=None):\n    r"""(B, D) -> (B, D), $y = fx$."""\n\n'
    'def scale_backward(dy, cache):\n    """(B, D) -> (B, D)."""\n',
    "numpy_vit/model.py": "from numpy_vit.scale import scale_forward\nfrom vit_common.config import read\n",
    "torch_vit/__init__.py": INIT,
    "torch_vit/scale.py": 'import torch\n\ndef scale_forward(x, factor=2.0, training=False):\n'
    '    """(B, D) -> (B, D)."""\n',
    "torch_vit/model.py": "from torch_vit.scale import scale_forward\n",
    **dict.fromkeys(arch.ALONE, "import torch\n"),
}


def plant(folder: Path, changes: dict[str, str | None]) -> Path:
    for name, text in {**GOOD, **changes}.items():
        if text is not None:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return folder


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_checks_accept_a_good_tree(check, tmp_path):
    assert check(plant(tmp_path, {})) == []


FORWARD, BACKWARD = GOOD["numpy_vit/scale.py"].split("\n\n")
BROKEN = [
    (arch.check_arrows, "numpy_vit/scale.py", "import torch\n", "imports torch"),
    (arch.check_arrows, "numpy_vit/scale.py", "def f():\n    import torch\n", "imports torch"),
    (arch.check_arrows, "numpy_vit/scale.py", "from torch_vit import scale\n", "imports torch_vit"),
    (arch.check_arrows, "numpy_vit/scale.py", "import scipy.special\n", "imports scipy at module level"),
    (arch.check_arrows, "numpy_vit/scale.py", "try:\n    import scipy\nfinally:\n    pass\n", "imports scipy"),
    (arch.check_arrows, "numpy_vit/scale.py", "class A:\n    import scipy\n", "imports scipy at module level"),
    (arch.check_arrows, "torch_vit/scale.py", "def f():\n    import numpy_vit.scale\n", "imports numpy_vit"),
    (arch.check_arrows, "torch_vit/scale.py", 'importlib.import_module("numpy_vit")\n', "imports numpy_vit"),
    (arch.check_arrows, "vit_common/config.py", "import torch\n", "imports torch at module level"),
    (arch.check_arrows, "vit_common/config.py", "def f():\n    import torch_vit\n", "imports torch_vit"),
    (arch.check_arrows, "vit_common/config.py", "def f():\n    from demo import x\n", "imports demo"),
    (arch.check_twins, "numpy_vit/scale.py", None, "numpy_vit/scale.py is missing"),
    (arch.check_twins, "torch_vit/__init__.py", 'STAGES = ("model", "scale")\n', "STAGES differ"),
    (arch.check_twins, "torch_vit/__init__.py", "", "STAGES differ"),
    (arch.check_twins, "numpy_vit/extra.py", "", "numpy_vit/extra.py has no twin"),
    (arch.check_twins, "torch_vit/tape.py", None, "torch_vit/tape.py is excused"),
    (arch.check_reading_order, "numpy_vit/scale.py", "from numpy_vit.model import vit_forward\n", "uses model"),
    (arch.check_names, "torch_vit/scale.py", "def other_forward(x): ...\n", "other_forward has no counterpart"),
    (arch.check_names, "torch_vit/scale.py", "def scale_forward(y, factor=2.0): ...\n", "scale.scale_forward takes"),
    (arch.check_names, "torch_vit/scale.py", "def scale_forward(x, factor=3.0): ...\n", "scale.scale_forward takes"),
    (arch.check_names, "torch_vit/scale.py", "def scale_forward(x): ...\n", "scale.scale_forward takes"),
    (arch.check_names, "torch_vit/scale.py", "def scale_forward(x, factor, z): ...\n", "scale.scale_forward takes"),
    (arch.check_backwards, "numpy_vit/scale.py", FORWARD, "scale_forward but no backward"),
    (arch.check_docstrings, "numpy_vit/scale.py", FORWARD.replace("$", ""), "no equation"),
    (arch.check_docstrings, "numpy_vit/scale.py", FORWARD.replace("(B, D)", "x"), "names no shape"),
    (arch.check_docstrings, "torch_vit/scale.py", "def scale_forward(x): ...\n", "has no docstring"),
    (arch.check_docstrings, "torch_vit/scale.py", "def scale_init(x): ...\n", "has no docstring"),
    (arch.check_lengths, "torch_vit/scale.py", "\n" * (arch.MAX_STAGE_LINES + 1), "lines, more than"),
    (arch.check_lengths, "vit_common/config.py", "\n" * (arch.MAX_LINES + 1), "lines, more than"),
]


@pytest.mark.parametrize(("check", "file", "text", "complaint"), BROKEN)
def test_checks_reject_a_broken_tree(check, file, text, complaint, tmp_path):
    assert any(complaint in line for line in check(plant(tmp_path, {file: text})))


@pytest.mark.parametrize("name", ["work", "root", "home/someone"])
def test_private_paths_are_found(name, tmp_path):
    path = tmp_path / "notes.md"
    path.write_text(f"see ./{name}/x, a/{name}/x and $ROOT/{name}\n")  # relative: no complaint
    assert arch.check_private_paths(tmp_path, [path]) == []
    path.write_text(f"first\nsee /{name}/x\n")
    assert arch.check_private_paths(tmp_path, [path]) == [f"notes.md:2 holds '/{name}'"]


CONFIGS = {
    "plain": {},
    "learned, mean": {"pool": "mean"},
    "no class token": {"pool": "mean", "class_token": False},
    "sincos_1d": {"pos_embed": "sincos_1d"},
    "sincos_2d": {"pos_embed": "sincos_2d", "patch_size": (2, 4), "in_channels": 3},
    "no positions": {"pos_embed": "none"},
    "no head": {"num_classes": 0},
    "no blocks": {"depth": 0},
    "rates": {"pos_drop_rate": 0.1, "attn_drop_rate": 0.1, "proj_drop_rate": 0.1, "drop_path_rate": 0.1},
}


@pytest.mark.parametrize("changes", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("attention", ["fused", "explicit", "manual"])
def test_the_state_dict_of_torch_is_the_parameter_dict(changes, attention):
    import torch_vit
    from vit_common import ViTConfig, init_params, param_spec

    config = ViTConfig.preset("digits", depth=changes.get("depth", 2)).replace(**changes)
    want = {name: spec.shape for name, spec in param_spec(config).items()}
    model = torch_vit.VisionTransformer(config, attention)
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == want
    assert {name: tuple(value.shape) for name, value in model.named_parameters()} == want
    assert {name: value.shape for name, value in init_params(config, seed=0).items()} == want
