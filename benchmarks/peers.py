"""Other programs that run a nanoGPT network, on the same weights: what `benchmarks.decode` compares with.

pip install -e '.[benchmarks]' brings them; llama-cpp-python is compiled from source, which takes some minutes.
Each samples at temperature 0.8 from the whole vocabulary, with two threads at most, or on a GPU in bfloat16. Each
has a process of its own: threads go on spinning after a call, and would slow down the next program in the same one.
"""

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from model.config import GPTConfig
from model.network import GPT

Write = Callable[[list[list[int]], int], None]
"""Writes a number of characters after each prompt, all prompts at once."""

TEMPERATURE = 0.8
THREADS = 2
NANOGPT = "nanoGPT's algorithm"
_loaded: dict[str, Write] = {}  # in a peer's process: that peer


class Peer:
    """A program that has loaded the network, in a process of its own.

    Raises:
        ImportError: it is not installed.
    """

    def __init__(self, name: str, folder: Path, device: str) -> None:
        self.device = device
        self._process = ProcessPoolExecutor(1, get_context("spawn"))
        self._process.submit(_open, name, folder, device).result()

    def rate(self, prompts: list[list[int]], length: int) -> float:
        """Characters a second of all prompts together, `length` characters after each.

        Raises:
            BrokenProcessPool: it crashed.
        """
        return self._process.submit(_rate, prompts, length).result()


def _open(name: str, folder: Path, device: str) -> None:
    """Load the network; called in the peer's process."""
    torch.set_num_threads(THREADS)
    network = nanogpt_network()
    if device == "cuda":
        network = network.to(device, torch.bfloat16)
    load = PEERS[device][name]
    _loaded[name] = load(network, folder)


def _rate(prompts: list[list[int]], length: int) -> float:
    """Write and measure; called in the peer's process."""
    [write] = _loaded.values()
    began = time.perf_counter()
    write(prompts, length)
    return len(prompts) * length / (time.perf_counter() - began)


def nanogpt_network() -> GPT:
    """An untrained network of the shape of nanoGPT's for Shakespeare; the same weights each time."""
    torch.manual_seed(0)
    return GPT(GPTConfig(65)).eval().requires_grad_(False)


def nanogpt(network: GPT, folder: Path) -> Write:
    """nanoGPT's own algorithm: the whole window is computed again for each character."""

    @torch.inference_mode()
    def write(prompts: list[list[int]], length: int) -> None:
        ids = torch.tensor(prompts, device=network.tokens.weight.device)
        for _ in range(length):
            logits = network(ids[:, -network.config.block_size :])[:, -1] / TEMPERATURE
            ids = torch.cat((ids, torch.multinomial(logits.softmax(-1), 1)), dim=1)
        ids.cpu()

    return write


def transformers(network: GPT, folder: Path) -> Write:
    """Hugging Face's library with its KV cache; on a GPU the static one, with compiled steps."""
    device = network.tokens.weight.device
    model = _to_transformers(network).to(device, network.tokens.weight.dtype)

    @torch.inference_mode()
    def write(prompts: list[list[int]], length: int) -> None:
        ids = torch.tensor(prompts, device=device)
        written = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            min_new_tokens=length,
            max_new_tokens=length,
            do_sample=True,
            temperature=TEMPERATURE,
            top_k=0,
            pad_token_id=0,
            cache_implementation="static" if device.type == "cuda" else None,
        )
        written.cpu()

    return write


def ctranslate2(network: GPT, folder: Path) -> Write:
    """CTranslate2 with int8 weights."""
    import ctranslate2 as library  # noqa: PLC0415 - optional
    from ctranslate2.converters.transformers import GPT2Loader  # noqa: PLC0415

    names = [f"<{i}>" for i in range(network.config.vocab_size)]
    spec = GPT2Loader().get_model_spec(_to_transformers(network))
    spec.register_vocabulary(names)
    spec.config.unk_token = spec.config.bos_token = spec.config.eos_token = names[0]
    spec.validate()
    spec.optimize(quantization="int8")
    (folder / "ctranslate2").mkdir()
    spec.save(str(folder / "ctranslate2"))
    generator = library.Generator(
        str(folder / "ctranslate2"), device="cpu", compute_type="int8", intra_threads=THREADS
    )

    def write(prompts: list[list[int]], length: int) -> None:
        done = generator.generate_batch(
            [[names[i] for i in prompt] for prompt in prompts],
            max_length=length,
            min_length=length,
            sampling_topk=0,
            sampling_temperature=TEMPERATURE,
            include_prompt_in_result=False,
        )
        assert all(len(result.sequences_ids[0]) == length for result in done)

    return write


class LlamaRow(NamedTuple):
    """One token of a batch for llama.cpp."""

    token: int
    position: int
    sequence: int
    wants_logits: bool


def llama_cpp(network: GPT, folder: Path, repacked: bool = True) -> Write:
    """llama.cpp with Q8_0 weights; NumPy samples from its logits, for all sequences at once.

    Args:
        repacked: let it repack the weights for this CPU; it has crashed where it would then use AMX.
    """
    import llama_cpp as library  # noqa: PLC0415 - optional

    config = network.config
    slots = 32
    path = folder / "model.gguf"
    _write_gguf(network, path)
    silent = library.llama_log_callback(lambda *_: None)
    library.llama_log_set(silent, None)
    library.llama_backend_init()
    model_parameters = library.llama_model_default_params()
    model_parameters.use_extra_bufts = repacked
    model = library.llama_model_load_from_file(str(path).encode(), model_parameters)
    parameters = library.llama_context_default_params()
    parameters.n_ctx = slots * config.block_size
    parameters.n_seq_max = slots
    parameters.n_batch = 2048
    parameters.n_threads = THREADS
    parameters.n_threads_batch = THREADS
    context = library.llama_init_from_model(model, parameters)
    batch = library.llama_batch_init(2048, 0, slots)
    random = np.random.default_rng(0)

    def forward(rows: list[LlamaRow]) -> None:
        batch.n_tokens = len(rows)
        for i, row in enumerate(rows):
            batch.token[i] = row.token
            batch.pos[i] = row.position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = row.sequence
            batch.logits[i] = row.wants_logits
        assert library.llama_decode(context, batch) == 0

    def sample(rows: list[int]) -> list[int]:
        pointers = [library.llama_get_logits_ith(context, row) for row in rows]
        logits = np.stack([np.ctypeslib.as_array(pointer, (config.vocab_size,)) for pointer in pointers])
        ids: list[int] = (logits / TEMPERATURE + random.gumbel(size=logits.shape)).argmax(1).tolist()
        return ids

    def write(prompts: list[list[int]], length: int, keep_alive: Any = silent) -> None:
        library.llama_memory_clear(library.llama_get_memory(context), True)
        last: list[int] = []  # each sequence's last token
        for sequence, prompt in enumerate(prompts):
            end = len(prompt) - 1
            forward([LlamaRow(token, i, sequence, wants_logits=i == end) for i, token in enumerate(prompt)])
            last += sample([end])
        for step in range(length - 1):
            rows: list[LlamaRow] = []
            for sequence, token in enumerate(last):
                rows.append(LlamaRow(token, len(prompts[sequence]) + step, sequence, wants_logits=True))
            forward(rows)
            last = sample(list(range(len(last))))

    return write


ON_GPU: dict[str, Callable[[GPT, Path], Write]] = {NANOGPT: nanogpt, "transformers": transformers}
PEERS = {
    "cuda": ON_GPU,
    "cpu": ON_GPU
    | {
        "CTranslate2 int8": ctranslate2,
        "llama.cpp Q8_0": llama_cpp,
        "llama.cpp Q8_0, not repacked": partial(llama_cpp, repacked=False),
    },
}


def _to_transformers(network: GPT) -> Any:
    """The same network as a GPT2LMHeadModel."""
    from transformers import GPT2Config, GPT2LMHeadModel  # noqa: PLC0415 - optional

    config = network.config
    shape = GPT2Config(
        vocab_size=config.vocab_size,
        n_positions=config.block_size,
        n_embd=config.n_embd,
        n_layer=config.n_layer,
        n_head=config.n_head,
        activation_function="gelu",
        bos_token_id=0,
        eos_token_id=None,
    )
    model: Any = GPT2LMHeadModel(shape)
    model.eval()
    tensors = _gpt2_tensors(network)
    model.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in tensors.items()}, strict=False)
    return model


def _gpt2_tensors(network: GPT) -> dict[str, NDArray[np.float32]]:
    """The weights under GPT-2's names: products as (inputs, outputs); biases that are not there are zeros."""

    def array(tensor: torch.Tensor | None, size: int = 0) -> NDArray[np.float32]:
        present = torch.zeros(size) if tensor is None else tensor.detach().float().cpu()
        return np.ascontiguousarray(present.numpy())

    named: dict[str, Any] = {"wte.weight": array(network.tokens.weight)}
    named["wpe.weight"] = array(network.positions.weight)
    blocks: list[Any] = list(network.blocks)
    norms = {"ln_f": network.norm}
    for i, block in enumerate(blocks):
        norms |= {f"h.{i}.ln_1": block.norm_attention, f"h.{i}.ln_2": block.norm_mlp}
        attention = block.attention
        products = {
            "attn.c_attn": (attention.query, attention.key, attention.value),
            "attn.c_proj": (attention.output,),
            "mlp.c_fc": (block.mlp.expand,),
            "mlp.c_proj": (block.mlp.output,),
        }
        for name, parts in products.items():
            weights = [array(part.weight) for part in parts]
            named[f"h.{i}.{name}.weight"] = np.ascontiguousarray(np.concatenate(weights).T)
            named[f"h.{i}.{name}.bias"] = np.concatenate([array(p.bias, len(p.weight)) for p in parts])
    for name, norm in norms.items():
        named[f"{name}.weight"] = array(norm.weight)
        named[f"{name}.bias"] = array(norm.bias, len(norm.weight))
    return {f"transformer.{name}": tensor for name, tensor in named.items()} | {
        "lm_head.weight": named["wte.weight"]
    }


def _write_gguf(network: GPT, path: Path) -> None:
    """The weights as llama.cpp reads a GPT-2, its products in Q8_0; without a tokenizer."""
    import gguf  # noqa: PLC0415 - optional

    config = network.config
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_block_count(config.n_layer)
    writer.add_context_length(config.block_size)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(1e-5)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("none")
    gguf_names = {
        "wte": "token_embd",
        "wpe": "position_embd",
        "ln_f": "output_norm",
        "ln_1": "attn_norm",
        "ln_2": "ffn_norm",
        "attn.c_attn": "attn_qkv",
        "attn.c_proj": "attn_output",
        "mlp.c_fc": "ffn_up",
        "mlp.c_proj": "ffn_down",
    }
    for name, tensor in _gpt2_tensors(network).items():
        module, _, kind = name.removeprefix("transformer.").rpartition(".")
        block = ""
        if module.startswith("h."):
            _, number, module = module.split(".", 2)
            block = f"blk.{number}."
        target = "output" if name == "lm_head.weight" else block + gguf_names[module]
        is_product = tensor.ndim == 2 and module != "wpe"
        values = tensor.T if block and is_product else tensor
        if is_product:
            quantised = gguf.quants.quantize(np.ascontiguousarray(values), gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(f"{target}.{kind}", quantised, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(f"{target}.{kind}", np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
