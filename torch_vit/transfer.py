"""Between host and device without either waiting for the other."""

import numpy as np
import torch
from torch import Tensor


class Upload:
    """Arrays to the device. On a GPU from pinned memory on a stream of their own, so that the next batch travels while
    the step before it computes."""

    def __init__(self, device: torch.device):
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, array: np.ndarray | Tensor) -> Tensor:
        """A copy on the device; a tensor that is there already is returned as it is."""
        if isinstance(array, Tensor):
            return array
        if self.stream is None:
            return torch.tensor(array, device=self.device)
        pinned, compute = host_copy(array, pinned=True), torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self.stream):
            there = pinned.to(self.device, non_blocking=True)
        compute.wait_stream(self.stream)  # the GPU waits, not the host
        there.record_stream(compute)  # its memory is not given away before the step has read it
        return there


def host_copy(array: np.ndarray, pinned: bool) -> Tensor:
    """A copy on the host; in pinned memory, into which torch itself puts nothing that comes from NumPy."""
    dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
    copy = torch.empty(array.shape, dtype=dtype, pin_memory=pinned)
    np.copyto(copy.numpy(), array)
    return copy


class Late:
    """A number on its way from the device. `float` waits for it, and not for the work that was queued after it."""

    def __init__(self, value: Tensor):
        self._host, self._arrived = value.detach(), None
        if value.device.type == "cuda":
            self._host = torch.empty((), dtype=value.dtype, pin_memory=True)
            self._host.copy_(value.detach(), non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record(torch.cuda.current_stream(value.device))

    def __float__(self) -> float:
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._host.item()
