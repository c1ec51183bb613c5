"""Recording forwards as CUDA graphs."""

from __future__ import annotations

import torch

from workers.engine.graphs import Captured, Forward, GraphRunner, Inputs

_WARM_UPS = 2
"""Forwards before a recording: libraries choose their algorithms and make their handles in the first."""


class CudaGraphs:
    """Records CUDA graphs of one device. All share one memory pool: they are replayed one after the other on
    one stream, and their answers are copied before the next replay.
    """

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        # one stream for warming up and recording, so that the libraries' workspaces are there already
        self._stream = torch.cuda.Stream(self._device)
        self._pool = torch.cuda.graph_pool_handle()

    def capture(self, forward: Forward, inputs: Inputs) -> Captured:
        """Record forward(*inputs); see Backend."""
        graph = torch.cuda.CUDAGraph()
        serving = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(serving)
        # entered out here, so that the thread is back on its stream even where recording fails
        with torch.cuda.stream(self._stream):
            before = torch.cuda.memory_allocated(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
            for _ in range(_WARM_UPS):
                forward(*inputs)
            work = torch.cuda.max_memory_allocated(self._device) - before
            # other threads may allocate meanwhile: their calls are no business of this recording
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                output = forward(*inputs)
        serving.wait_stream(self._stream)
        return Captured(output, graph.replay, work)

    def settle(self) -> None:
        """Wait until no graph is being replayed."""
        torch.cuda.synchronize(self._device)

    def renew(self) -> None:
        """Begin with a new pool; the old one's memory is given back with its last graph."""
        self._pool = torch.cuda.graph_pool_handle()
        torch.cuda.empty_cache()


def runner(device: str, most: int, most_bytes: int) -> GraphRunner | None:
    """What serves the UNets of `device` by at most `most` recordings; None where there are to be none, or the
    device knows no CUDA graphs.
    """
    if most <= 0 or not device.startswith("cuda"):
        return None
    return GraphRunner(CudaGraphs(device), most=most, most_bytes=most_bytes)
