"""Pickles and PyTorch files from untrusted sources, read without running any code in them.

Every size is checked before anything is allocated by it. Knows nothing of what the files are for.
"""

import zipfile
from pathlib import Path
from typing import Any

from model.atomic_files import check_file
from model.errors import CheckpointError
from training.untrusted.checks import DAMAGE_ERRORS, MAX_FILE_BYTES, UnsafeError, shown
from training.untrusted.pickle_machine import MAX_PICKLE_BYTES, run_pickle
from training.untrusted.plain_values import PLAIN_NAMES
from training.untrusted.torch_archive import LEGACY_START, BoundedFile, TorchArchive, check_start


def read_pickle_file(path: Path) -> Any:
    """The plain values in a pickle: texts, numbers, lists, tuples, dictionaries and sets of them.

    Raises:
        CheckpointError: missing, not a pickle, too large, or it holds something else, such as code to run.
    """
    try:
        check_file(path, MAX_PICKLE_BYTES)
        return run_pickle(path.read_bytes(), PLAIN_NAMES)
    except UnsafeError as error:
        raise CheckpointError(f"{path}: refused, {error}") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    except DAMAGE_ERRORS as error:
        raise CheckpointError(f"{path}: not a whole pickle ({shown(error)})") from error


def read_torch_file(path: Path) -> Any:
    """What `torch.save` wrote: plain values and ordinary tensors, these on the CPU.

    Takes no more memory than the file's own size and a bounded amount for the values.

    Raises:
        CheckpointError: missing, damaged, too large, or it holds something else, such as code to run.
    """
    try:
        check_file(path, MAX_FILE_BYTES)
        with BoundedFile(path) as file:
            check_start(file.read(len(LEGACY_START)))
            with zipfile.ZipFile(file) as archive:
                return TorchArchive(archive, path.stat().st_size).load()
    except UnsafeError as error:
        raise CheckpointError(f"{path}: refused, {error}") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    except DAMAGE_ERRORS as error:
        raise CheckpointError(f"{path}: cannot be read as a PyTorch file ({shown(error)})") from error
