"""The reference engine on an NVIDIA GPU: weights drawn on the device, decode steps replayed from CUDA graphs.

A decode step of a large model is hundreds of small kernels: starting them one by one takes longer than running them.
So the step is recorded once for each of some numbers of slots and lengths of context, and a step replays the smallest
that covers what is decoded. Prompts run as they do everywhere. Torch is imported here and in ``reference.torch_ops``.
"""

from collections.abc import Callable, Sequence
from typing import Any

from enginebench.errors import BuildError
from enginebench.reference.engine import Engine, Scores, Span
from enginebench.reference.options import ReferenceOptions
from enginebench.reference.torch_ops import TorchOps
from enginebench.reference.weights import scale_of, weight_shapes

SHORTEST_CONTEXT = 256
"""Positions that every decode step reads at least; the next lengths double."""


def open_cuda_engine(options: ReferenceOptions) -> "CudaEngine":
    """Draw the weights and record the decode steps. Raises BuildError without torch, a GPU, or enough of its memory."""
    try:
        import torch
    except ImportError as error:
        raise BuildError(f"The reference build needs torch to run on cuda ({error}): install it.") from error
    if not torch.cuda.is_available():
        raise BuildError("The reference build is for cuda, and torch sees no GPU here: build it with --device cpu.")
    try:
        return CudaEngine(options)
    except torch.cuda.OutOfMemoryError as error:
        raise BuildError(
            f"The reference build does not fit the GPU's memory ({error}): take fewer layers or slots."
        ) from error


class CudaEngine(Engine):
    """An engine on the current CUDA device."""

    def __init__(self, options: ReferenceOptions) -> None:
        import torch

        torch.backends.cuda.enable_cudnn_sdp(False)  # cuDNN plans attention anew for every length of a prompt
        ops = TorchOps(options.dtype, "cuda")
        super().__init__(options, draw_weights(options, ops), ops)
        self._graphs = DecodeGraphs(self.decode, options.max_batch_size, options.max_seq_len)

    def facts(self) -> dict[str, Any]:
        """As every engine's, and which device and torch it is."""
        import torch

        device = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda}
        return {**super().facts(), **device, "decode_graphs": len(self._graphs)}

    def forward(self, spans: Sequence[Span]) -> Scores:
        """As every engine's; spans of one token are replayed together, after the others."""
        prompts = [span for span in spans if len(span.token_ids) > 1]
        decodes = [span for span in spans if len(span.token_ids) == 1]
        by_slot: dict[int, tuple[int, Any]] = {}
        if prompts:
            scores = super().forward(prompts)
            answers = zip(scores.best, scores.logits, strict=True)
            by_slot |= {span.slot: answer for span, answer in zip(prompts, answers, strict=True)}
        if decodes:
            ids, rows = self._graphs.replay(decodes)
            by_slot |= {span.slot: (ids[span.slot], rows[span.slot]) for span in decodes}
        best, logits = zip(*(by_slot[span.slot] for span in spans), strict=True)
        return Scores(best, logits, self._ops.on_host)


class DecodeGraphs:
    """A decode step, recorded for 1, 2, 4 … slots and for contexts of 256, 512 … positions.

    The graphs share their memory: what a replay returns is valid until the next one.
    """

    def __init__(self, decode: Callable[[Any, Any, int], tuple[Any, Any]], slots: int, positions: int) -> None:
        import torch

        self._slots, self._contexts = doubling(1, slots), doubling(SHORTEST_CONTEXT, positions)
        self._idle = positions
        self._inputs = torch.zeros((2, slots), dtype=torch.int64, device="cuda")  # ids, positions
        self._staged = torch.zeros((2, slots), dtype=torch.int64, pin_memory=True)
        ids, starts = self._inputs
        decode(ids, starts, self._contexts[-1])  # libraries choose and load their kernels outside a recording
        self._graphs: dict[tuple[int, int], tuple[Any, tuple[Any, Any]]] = {}
        pool = torch.cuda.graph_pool_handle()
        for count in reversed(self._slots):  # the largest first: the others fit into its memory
            for context in reversed(self._contexts):
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, pool=pool):
                    outputs = decode(ids[:count], starts[:count], context)
                self._graphs[count, context] = (graph, outputs)

    def __len__(self) -> int:
        return len(self._graphs)

    def replay(self, spans: Sequence[Span]) -> tuple[list[int], Any]:
        """Compute ``spans``, of one token each; return the best id and the logits by slot."""
        count = _covering(self._slots, 1 + max(span.slot for span in spans))
        context = _covering(self._contexts, 1 + max(span.start for span in spans))
        staged = self._staged.numpy()
        staged[0], staged[1] = 0, self._idle
        for span in spans:
            staged[:, span.slot] = span.token_ids[0], span.start
        self._inputs.copy_(self._staged, non_blocking=True)
        graph, (best, logits) = self._graphs[count, context]
        graph.replay()
        return best.tolist(), logits


def doubling(first: int, last: int) -> list[int]:
    """``first``, twice that, … below ``last``, and ``last``."""
    sizes = []
    while first < last:
        sizes.append(first)
        first *= 2
    return [*sizes, last]


def draw_weights(options: ReferenceOptions, ops: TorchOps) -> dict[str, Any]:
    """Draw the weights on the device of ``ops`` from the build's seed, distributed as ``reference.weights`` does."""
    import torch

    generator = torch.Generator(ops.device).manual_seed(options.seed)

    def draw(name: str, shape: tuple[int, ...]) -> Any:
        if (scale := scale_of(name, shape)) is None:
            return torch.ones(shape, dtype=ops.dtype, device=ops.device)
        return torch.randn(shape, generator=generator, dtype=ops.dtype, device=ops.device).mul_(scale)

    return {name: draw(name, shape) for name, shape in weight_shapes(options).items()}


def _covering(sizes: Sequence[int], wanted: int) -> int:
    return next(size for size in sizes if size >= wanted)
