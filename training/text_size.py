"""Whether a text is long enough for a network, and which preset suits it. Knows nothing of runs.

Rules of thumb for a text that is read more than once:

- Up to 4 readings are worth nearly as much as new text; after that, the worth of one more falls to nothing
  (Muennighoff et al. 2023, "Scaling data-constrained language models", arXiv:2305.16264).
- New text is best spent on one parameter for 20 tokens (Hoffmann et al. 2022, arXiv:2203.15556). For a text that is
  read again and again, with strong regularisation, larger networks go on to be better, at least to 7 parameters for
  each token; without it they overfit (Kim et al. 2025, "Pre-training under infinite compute", arXiv:2509.14786).
- The bundled model has 10.6 parameters for each character of its text, with dropout 0.25 and weight decay 0.2. More
  has not been tried here.
"""

from training.settings import PRESETS, TrainSettings

MAX_EPOCHS_AS_NEW = 4
MAX_PARAMETERS_PER_CHARACTER = 12
SMALLER_PRESETS = ("laptop-5min", "cpu-2min", "shakespeare-char-cpu")  # the largest first


def preset_parameters(preset: str, vocab_size: int) -> int:
    """The number of parameters of a preset's network, as nanoGPT counts them: without position embeddings."""
    values = PRESETS[preset]
    layers: int = values.get("n_layer", TrainSettings.model_fields["n_layer"].default)
    width: int = values.get("n_embd", TrainSettings.model_fields["n_embd"].default)
    return 12 * layers * width**2 + vocab_size * width


def suitable_preset(characters: int, vocab_size: int, on_gpu: bool) -> str | None:
    """The preset with the largest network that a text of so many characters is long enough for; None if none is."""
    for preset in ("gpu" if on_gpu else "laptop-1h", *SMALLER_PRESETS):
        if preset_parameters(preset, vocab_size) <= MAX_PARAMETERS_PER_CHARACTER * characters:
            return preset
    return None


def text_advice(parameters: int, characters: int, epochs: float, vocab_size: int, on_gpu: bool) -> str | None:
    """What to say where the text is too short for the network and is read often; None where it is not.

    Args:
        characters: of the text that is trained on.
        epochs: how many times it is read.
    """
    if epochs <= MAX_EPOCHS_AS_NEW or parameters <= MAX_PARAMETERS_PER_CHARACTER * characters:
        return None
    ratio = parameters / characters
    found = f"the text is too short for this model: {ratio:.0f} parameters for each of {characters:,} characters"
    preset = suitable_preset(characters, vocab_size, on_gpu)
    if preset is None:
        most = MAX_PARAMETERS_PER_CHARACTER * characters
        return f"{found}; no preset is small enough: use fewer --n_layer and --n_embd, to {most:,} parameters"
    millions = preset_parameters(preset, vocab_size) / 1e6
    return f"{found}; --preset={preset} suits it, with {millions:.1f}M"
