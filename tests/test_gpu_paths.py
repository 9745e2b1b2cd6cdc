"""What only a GPU runs, as far as a CPU can see it: torch.cuda replaced by its record, or tensors without data."""

import warnings
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import torch_vit
from benchmarks import gpu, gpu_extras, gpu_runners
from benchmarks.contestants import make_case
from torch_vit import packed_attention, packed_tokens, to_torch, transfer
from vit_common import ViTConfig, init_params

CUDA = torch.device("cuda:1")
CONFIG = ViTConfig(image_size=8, patch_size=4, in_channels=1, num_classes=5, embed_dim=8, depth=1, num_heads=2)


# ---- the engine


@pytest.mark.parametrize("array", [np.arange(6.0).reshape(2, 3).T, np.arange(4), np.array(3, np.float32),
                                   np.zeros((0, 2), bool), np.broadcast_to(np.uint8(7), (2, 3))],
                         ids=["float64", "int64", "float32", "bool", "read-only"])  # fmt: skip
def test_an_array_is_copied_to_the_host_memory_of_torch(array):
    copy = transfer.host_copy(array, pinned=False)
    assert copy.dtype == torch.tensor(array.copy()).dtype
    assert np.array_equal(copy.numpy(), array)
    assert not np.shares_memory(copy.numpy(), array)


def test_an_upload_to_a_gpu_goes_through_pinned_memory(monkeypatch):
    asked, order, real = [], [], torch.empty

    def empty(*shape, pin_memory=False, **options):
        asked.append(pin_memory)
        return real(*shape, **options)

    compute = SimpleNamespace(wait_stream=lambda stream: order.append(("waits for", stream)))
    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: compute)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: order.append(("read by", stream)))
    upload = transfer.Upload(torch.device("cpu"))
    upload.stream = "copies"
    assert upload(np.arange(6).reshape(2, 3)).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert asked == [True]
    assert order == [("waits for", "copies"), ("read by", compute)]


@pytest.mark.parametrize("pos_embed", ["learned", "sincos_1d", "sincos_2d", "none"])
@pytest.mark.parametrize("function", [torch_vit.vit_forward, torch_vit.serve])
def test_fixed_positions_follow_the_images_to_their_device(function, pos_embed):
    config = CONFIG.replace(pos_embed=pos_embed)
    params = to_torch(init_params(config, 0), "meta")
    logits = function(params, torch.empty(3, 1, 8, 8, device="meta"), config)
    assert logits.is_meta
    assert logits.shape == (3, 5)


@pytest.mark.parametrize(
    ("capability", "width", "one_kernel"),
    [((8, 0), 64, True), ((9, 0), 256, True), ((7, 5), 64, False), ((8, 0), 264, False)],
)
def test_the_kernel_for_segments_is_asked_only_for_what_it_can_do(capability, width, one_kernel, monkeypatch):
    class Row(torch.Tensor):
        is_cuda, device, dtype = True, CUDA, torch.bfloat16

    monkeypatch.setattr(packed_attention, "HAS_VARLEN", True)
    monkeypatch.setattr(packed_attention, "check_qkv", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", {CUDA: capability}.__getitem__)
    monkeypatch.setattr(packed_attention, "_varlen", lambda q, k, v, lengths: "one kernel")
    monkeypatch.setattr(packed_attention, "fused_attention_forward", lambda q, k, v: torch.zeros(1, 2, 1, width))
    row = torch.zeros(1, 2, 3, width).as_subclass(Row)
    found = packed_attention.packed_attention_forward(row, row, row, (1, 2))
    assert (isinstance(found, str) and found == "one kernel") is one_kernel


def test_packed_positions_are_computed_once_a_grid(monkeypatch):
    seen, real = [], packed_tokens.grid_positions

    def look(params, grid, config):
        seen.append(grid)
        return real(params, grid, config)

    monkeypatch.setattr(packed_tokens, "grid_positions", look)
    images = [torch.zeros(1, 4 * height, 4 * width) for height, width in [(1, 2), (2, 2), (1, 2), (3, 1), (2, 2)]]
    torch_vit.packed_forward(to_torch(init_params(CONFIG, 0)), images, CONFIG)
    assert seen == [(1, 2), (2, 2), (3, 1)]


# ---- the benchmark


class FakeCuda:
    """What torch.cuda counts: bytes at their peak, and for which device anything was asked."""

    def __init__(self, monkeypatch):
        self.peak, self.devices, self.modes = 0, [], []
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: self.devices.append(device))
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: setattr(self, "peak", 0))
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: self.peak)
        monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", self.set_mode)
        nothing = SimpleNamespace(events=list)
        monkeypatch.setattr(torch.profiler, "profile", lambda activities: nullcontext(nothing))

    def set_mode(self, mode):
        self.modes.append(mode)
        if len(self.modes) == 1:
            warnings.warn(
                "Synchronization debug mode is a prototype feature and does not yet detect all synchronizing "
                "operations", UserWarning, stacklevel=2,
            )  # fmt: skip


def test_of_cuda_graphs_the_recording_call_is_measured(monkeypatch):
    cuda, needs = FakeCuda(monkeypatch), iter([10**9, 500])  # to compile and tune, to record; nothing to replay

    def call():
        cuda.peak = max(cuda.peak, next(needs, 0))

    assert gpu_runners.peak_memory(call, CUDA) == 500
    assert gpu_runners.peak_memory(call, torch.device("cpu")) == 0


def test_everything_waits_for_the_device_that_is_measured(monkeypatch):
    cuda = FakeCuda(monkeypatch)
    gpu.synchronise(CUDA)()
    gpu_runners.peak_memory(lambda: None, CUDA)
    assert gpu_runners.host_waits(lambda: None, CUDA) == []
    assert cuda.devices == [CUDA, CUDA, CUDA]
    assert cuda.modes == ["error", "default"]


def test_a_wait_that_torch_detects_is_named_and_detection_ends(monkeypatch):
    cuda = FakeCuda(monkeypatch)

    def call():
        raise RuntimeError("called a synchronizing CUDA operation\nmore")

    assert gpu_runners.host_waits(call, CUDA) == ["called a synchronizing CUDA operation"]
    assert cuda.modes == ["error", "default"]


def test_attention_kernels_are_timed_on_what_the_model_gives_them(monkeypatch):
    case, seen = make_case("mnist", 2), []
    real = torch.nn.functional.scaled_dot_product_attention

    def look(q, k, v):
        seen.append([t.stride() for t in (q, k, v)])
        return real(q, k, v)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", look)
    model = torch_vit.VisionTransformer(case.config)
    model(torch.tensor(case.images))
    expected = seen[0]
    seen.clear()
    gpu_extras.attention_kernels(case, torch.device("cpu"), lambda: None)
    assert all(strides == expected for strides in seen)
    assert seen


def test_the_clock_estimates_each_mode_by_itself(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(gpu.time, "perf_counter", lambda: now[0])
    clock = gpu.Clock(100.0)

    def work(seconds):
        now[0] += seconds
        return "done"

    assert clock.spend("a", lambda: work(10)) == "done"
    assert clock.spend("b", lambda: work(50), "max-autotune") == "done"
    assert clock.spend("c", lambda: work(50), "max-autotune") is None  # 60 + 50 > 100
    assert clock.spend("d", lambda: work(10)) == "done"  # 60 + 10
    assert clock.spend("e", lambda: work(1), "default") is None  # the first of its kind: as long as the longest
    assert clock.left_out == ["c", "e"]


@pytest.mark.parametrize("who", ["torch", "timm"])
def test_a_summary_of_one_contestant(who):
    name, case = f"{who}, eager", "vit_large_patch16_224, batch 128, training step"
    row = {"case": case, "images_per_second": {name: 9.0}, "efficiency": {name: 0.5}, "peak_mib": {name: 7.0}}
    assert gpu.summary([row]) == {case: {"efficiency": 0.5} if who == "torch" else {}}
    assert len(gpu.goals(gpu.summary([row]))) == (who == "torch")
