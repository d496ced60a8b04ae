"""Every setting of a training run, spelled as nanoGPT spells it, and the named presets."""

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode, PydanticBaseSettingsSource

from model.atomic_files import FolderReader
from model.cli import SettingsPath, settings_config
from model.config import GPTConfig
from model.flags import DeviceFlag, DtypeFlag, ForeignFlag, NotBlank, ProgramSettings

MODERN = {
    "positions": "rotary",
    "norm": "rmsnorm",
    "activation": "relu2",
    "qk_norm": True,
    "optimizer": "muon",
    "learning_rate": 4e-3,
    "min_lr": 0.0,
    "beta2": 0.99,
    "batches": "epochs",
    "schedule": "linear",
    "batch_size": 16,
    "warmup_iters": 20,
}

PRESETS: dict[str, dict[str, Any]] = {
    # nanoGPT's config/train_shakespeare_char.py
    "shakespeare-char": {
        "batch_size": 64,
        "dropout": 0.2,
        "attention_dropout": 0.2,
        "embedding_dropout": 0.2,
        "beta2": 0.99,
        "max_iters": 5000,
        "warmup_iters": 100,
    },
    # nanoGPT's README, for a laptop: a fifth of the parameters, 26 MB of activations
    "shakespeare-char-cpu": {
        "n_layer": 4,
        "n_head": 4,
        "n_embd": 128,
        "block_size": 64,
        "batch_size": 12,
        "beta2": 0.99,
        "max_iters": 2000,
        "warmup_iters": 100,
    },
    # a first try of a new text
    "cpu-2min": MODERN | {"n_layer": 4, "n_head": 4, "n_embd": 192, "max_iters": 300, "eval_interval": 100},
    # the best for some minutes of training
    "laptop-5min": MODERN | {"n_layer": 4, "n_head": 4, "n_embd": 256, "max_iters": 500, "eval_interval": 100},
    # the bundled model; it reads 6.6 million characters
    "laptop-1h": MODERN
    | {
        "dropout": 0.25,
        "weight_decay": 0.2,
        "calibration": 0.02,
        "max_iters": 1600,
        "eval_interval": 200,
    },
    # reads four times as many characters as the bundled model; the loss is lowest after two thirds of them
    "gpu": MODERN
    | {
        "dropout": 0.25,
        "weight_decay": 0.2,
        "calibration": 0.02,
        "batch_size": 64,
        "max_iters": 1500,
        "compile": True,
    },
}
TRUE_WORDS = ("True", "true", "1")
FALSE_WORDS = ("False", "false", "0")
TENSORBOARD_ANSWER = "--tensorboard=DIR writes event files instead"
NANOGPT_FLAGS = {
    "init_from": ForeignFlag(
        "only scratch; --resume=True goes on with the run in --out_dir, and GPT-2 is of tokens, not characters",
        accepted=("scratch",),
    ),
    "dataset": ForeignFlag("name its folder, --data=data/NAME"),
    "eval_iters": ForeignFlag("--eval_blocks says how much is read: nanoGPT's eval_iters times its batch_size"),
    "eval_only": ForeignFlag(
        "python -m training.evaluate --checkpoint=DIR --data=DIR evaluates", accepted=FALSE_WORDS
    ),
    "always_save_checkpoint": ForeignFlag(
        "each evaluation keeps the best weights, and the state to resume; --snapshots=N keeps N more",
        accepted=FALSE_WORDS,
    ),
    "log_interval": ForeignFlag("the progress bar shows the loss of every step; leave it out"),
    "decay_lr": ForeignFlag("--min_lr as high as --learning_rate keeps it there", accepted=TRUE_WORDS),
    "backend": ForeignFlag("chosen by the device: nccl for GPUs, gloo for CPUs; leave it out"),
    "wandb_log": ForeignFlag(TENSORBOARD_ANSWER, accepted=FALSE_WORDS),
    "wandb_project": ForeignFlag(TENSORBOARD_ANSWER),
    "wandb_run_name": ForeignFlag(TENSORBOARD_ANSWER),
}
MIN_CHARACTERS_FOR_LARGE_NETWORK = 300_000  # with fewer, a smaller network overfits less


def split_at_commas(value: Any) -> Any:
    """The parts of a text, for a setting that is a list."""
    return value.split(",") if isinstance(value, str) else value


SettingsPaths = Annotated[list[SettingsPath], NoDecode, BeforeValidator(split_at_commas)]


def suggest_preset(characters: int, on_gpu: bool) -> str:
    """The preset for a training text of so many characters."""
    if characters < MIN_CHARACTERS_FOR_LARGE_NETWORK:
        return "cpu-2min"
    return "gpu" if on_gpu else "laptop-5min"


class PresetSource(PydanticBaseSettingsSource):
    """The values of the preset that stronger sources (flags, environment) name; auto chooses one."""

    def get_field_value(self, field: object, field_name: str) -> tuple[Any, str, bool]:
        """Not used: `__call__` returns all values at once."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        name = self.current_state.get("preset", self.settings_cls.model_fields["preset"].default)
        if name != "auto":
            return PRESETS.get(name, {})
        try:
            folder = Path(self.current_state.get("data", "")).expanduser()
            size = FolderReader(folder).path("train.bin").stat().st_size // 2
        except (OSError, RuntimeError):  # reported when the data set is opened
            size = 0
        name = suggest_preset(size, torch.cuda.is_available())
        return {"preset": name} | PRESETS[name]


PresetName = Literal[
    "auto",
    "laptop-5min",
    "laptop-1h",
    "gpu",
    "cpu-2min",
    "shakespeare-char",
    "shakespeare-char-cpu",
]


class TrainSettings(ProgramSettings):
    """Train a character-level GPT on a prepared data set. Any setting overrides the preset's."""

    model_config = settings_config("training.train", "SOLILOQUY_TRAIN_")

    data: SettingsPath
    """Folder that training.prepare wrote"""
    out_dir: SettingsPath = Field(
        default_factory=lambda values: Path("checkpoints") / values.get("data", Path()).name
    )
    """Checkpoint folder to write; checkpoints/ and the data folder's name if not given"""
    preset: PresetName = "auto"
    """Named settings; auto chooses by the length of the text and the device"""
    resume: bool = False
    """Go on where the run in out_dir stopped"""

    n_layer: int = 6
    """Layers"""
    n_head: int = 6
    """Attention heads per layer"""
    n_embd: int = 384
    """Width of the residual stream"""
    block_size: int = Field(256, ge=2)
    """Longest context in characters"""
    positions: Literal["learned", "rotary"] = "learned"
    """How positions are told apart"""
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    """Normalisation: with weights, or without"""
    activation: Literal["gelu", "relu2"] = "gelu"
    """Of the MLP; relu2 is squared ReLU"""
    qk_norm: bool = False
    """Normalise queries and keys"""
    bias: bool = False
    """Biases in linear layers and LayerNorm"""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout of what attention and MLP add to the residual stream"""
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout of attention weights (on a CPU it leaves the fused kernel)"""
    embedding_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout of the embedding"""

    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon: Muon for the matrices inside the layers, AdamW for the rest"""
    learning_rate: float = Field(1e-3, gt=0)
    """AdamW's peak learning rate"""
    muon_learning_rate: float = Field(1e-2, gt=0)
    """Muon's peak learning rate"""
    weight_decay: float = Field(0.1, ge=0)
    """Of matrices (with muon: of its matrices only)"""
    beta1: float = Field(0.9, ge=0, lt=1)
    """AdamW's first beta"""
    beta2: float = Field(0.99, ge=0, lt=1)
    """AdamW's second beta"""
    grad_clip: float = Field(1.0, ge=0)
    """Largest norm of a step's gradient; 0 for any"""
    schedule: Literal["cosine", "linear"] = "cosine"
    """Decay of the learning rate after the warm-up"""
    min_lr: float | None = Field(None, ge=0)
    """AdamW's learning rate at the end; a tenth of learning_rate if not given"""
    warmup_iters: int = Field(100, ge=0)
    """Steps of linear warm-up"""
    lr_decay_iters: int | None = Field(None, ge=1)
    """Step at which the learning rate has come down to min_lr; max_iters if not given"""
    max_iters: int = Field(5000, ge=1)
    """Steps"""
    batches: Literal["random", "epochs"] = "random"
    """random: rows start anywhere (nanoGPT); epochs: each block once per shuffled epoch"""
    batch_size: int = Field(64, ge=1)
    """Rows of block_size characters at a time, of all processes together"""
    gradient_accumulation_steps: int = Field(1, ge=1)
    """How many times batch_size rows make one step"""

    ema: float = Field(0.0, ge=0, lt=1)
    """Decay of a moving average of the weights, such as 0.99: the average is evaluated and kept; 0 for none"""
    calibration: float = Field(0.0, ge=0, lt=0.5)
    """Share of the training text (its beginning) that is not trained on, to fit one scale of the logits on"""

    eval_interval: int = Field(250, ge=1)
    """Steps between evaluations; each keeps the best weights and the state to resume"""
    eval_blocks: int = Field(1024, ge=1)
    """Validation blocks read at each evaluation, evenly spaced; all if there are fewer"""
    patience: int = Field(0, ge=0)
    """End the run after this many evaluations in a row without a lower validation loss; 0: never"""
    sample_tokens: int = Field(200, ge=0)
    """Characters of sample text shown at each evaluation"""
    snapshots: int = Field(0, ge=0)
    """Keep the weights at this many steps, in OUT_DIR-snapshots; most of them early"""
    tensorboard: SettingsPath | None = None
    """Folder for TensorBoard's event files"""
    seed: int = Field(1337, ge=0)
    """Of weights, batches and dropout"""
    device: DeviceFlag = "auto"
    """Where to train"""
    dtype: DtypeFlag = "auto"
    """Of matrix products; auto is bfloat16 where the hardware multiplies it"""
    compile: bool = False
    """Compile the network with torch.compile (needs a C++ compiler on a CPU)"""

    @classmethod
    def sources(
        cls,
        flags: PydanticBaseSettingsSource,
        variables: PydanticBaseSettingsSource,
        env_file: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags over environment over preset over defaults."""
        return flags, NotBlank(variables), PresetSource(cls)

    def architecture(self, vocab_size: int) -> GPTConfig:
        """The network's configuration; raises InputError when its values do not fit each other."""
        return GPTConfig(
            vocab_size=vocab_size,
            n_layer=self.n_layer,
            n_head=self.n_head,
            n_embd=self.n_embd,
            block_size=self.block_size,
            positions=self.positions,
            norm=self.norm,
            activation=self.activation,
            qk_norm=self.qk_norm,
            bias=self.bias,
        )
