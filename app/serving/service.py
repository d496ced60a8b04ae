"""What is served, and changing it under way: a checkpoint, the engine that writes by it, what is known of it."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from app.serving.engine import Engine
from app.serving.model_card import ModelCard
from app.serving.snapshots import Gallery
from app.serving.work import WorkQueue
from app.settings import ServerSettings
from model.checkpoint import Checkpoint, read_checkpoint
from model.device import choose_numerics, give_back_memory
from model.errors import CheckpointError, SoliloquyError
from model.generation.generator import load_generator
from model.generation.sequence import TextSequence
from model.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

REPORT_THREADS = 2  # so that a short report does not wait for one long one
REPORT_PLACES = 16
REPORT_SECONDS = 30.0  # of 100,000 characters, on a busy machine, it takes some
SNAPSHOT_THREADS = 1  # each snapshot writes one text at a time
SNAPSHOT_PLACES = 4
SNAPSHOT_SECONDS = 60.0


@dataclass(frozen=True)
class Serving:
    """One checkpoint being served. Its weights are the engine's alone."""

    checkpoint: Checkpoint
    engine: Engine
    card: ModelCard
    gallery: Gallery

    @property
    def vocabulary(self) -> Vocabulary:
        """The characters that can be read and written."""
        return self.checkpoint.vocabulary

    @classmethod
    def load(cls, settings: ServerSettings) -> "Serving":
        """Read the checkpoint that the settings name and make ready to write; the engine is not started.

        Raises:
            CheckpointError, DeviceError: what cannot be served.
        """
        numerics = choose_numerics(settings.device, settings.dtype)
        checkpoint = read_checkpoint(settings.checkpoint)
        generator = load_generator(checkpoint, numerics, settings.slots, settings.threads)
        try:
            beginning = checkpoint.vocabulary.encode(checkpoint.vocabulary.default_prompt)
            list(generator.write(TextSequence(checkpoint.vocabulary, beginning, max_new_tokens=1)))
        except FloatingPointError as error:
            raise CheckpointError(f"{settings.checkpoint}: cannot write ({error})") from error
        engine = Engine(generator, settings.queue_size, settings.buffer_characters)
        gallery = Gallery(settings.checkpoint, numerics)
        card = ModelCard.of(checkpoint, numerics, gallery.steps)
        serving = cls(replace(checkpoint, weights={}), engine, card, gallery)
        del checkpoint
        give_back_memory()
        return serving


class Service:
    """The running server's state: `current` is what new requests are written by.

    A request takes `current` once and stays on it; use it without awaiting between that and `Engine.submit`.
    Reports, snapshots and reading a checkpoint have threads of their own, so that none waits for another.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.current = Serving.load(settings)
        self.reports = WorkQueue("report", REPORT_THREADS, REPORT_PLACES, REPORT_SECONDS)
        self.snapshots = WorkQueue("snapshot", SNAPSHOT_THREADS, SNAPSHOT_PLACES, SNAPSHOT_SECONDS)
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="reload")
        self._retired: list[Serving] = []
        self._past_steps = self._past_failures = 0  # of engines that are gone
        self._reloading = asyncio.Lock()
        self._stopping = False

    @property
    def engines(self) -> list[Engine]:
        """The engine that takes work, and those that finish what they have begun."""
        return [self.current.engine, *(one.engine for one in self._retired)]

    @property
    def idle(self) -> bool:
        """True when nothing is being written and nothing waits."""
        return all(engine.idle for engine in self.engines) and self.reports.idle and self.snapshots.idle

    @property
    def steps(self) -> int:
        """Calls of the generator, whatever was served."""
        return self._past_steps + sum(engine.steps for engine in self.engines)

    @property
    def failures(self) -> int:
        """Those of them that failed."""
        return self._past_failures + sum(engine.failures for engine in self.engines)

    def start(self) -> None:
        """Begin to take work."""
        self.current.engine.start()

    async def reload(self) -> bool:
        """Read the checkpoint folder again and change over: running streams stay on the old checkpoint.

        False, and nothing has changed, if the new one cannot be served. While the server stops, it takes no work.
        """
        async with self._reloading:
            try:
                loop = asyncio.get_running_loop()
                new = await loop.run_in_executor(self._loader, Serving.load, self.settings)
            except SoliloquyError as error:
                logger.error("the old checkpoint serves on: %s", error)
                return False
            except Exception:  # no memory, a driver's error: whatever it is, it must not end what is served
                logger.exception("the old checkpoint serves on")
                return False
            old = self.current
            self._retired.append(old)
            self.current = new
            new.engine.start()
            old.engine.retire()
            if self._stopping:
                new.engine.drain(0.0)
            logger.info("checkpoint %s took over from %s", new.card.checkpoint, old.card.checkpoint)
            return True

    def release(self) -> None:
        """Let go of what was served before, and its memory, once its last text is written; called now and then."""
        ended = [one.engine for one in self._retired if one.engine.ended]
        self._retired = [one for one in self._retired if one.engine not in ended]
        self._past_steps += sum(engine.steps for engine in ended)
        self._past_failures += sum(engine.failures for engine in ended)
        if ended:
            ended.clear()
            give_back_memory()

    def drain(self, seconds: float) -> None:
        """Take no new work, and end what does not finish in so many seconds."""
        self._stopping = True
        for engine in self.engines:
            engine.drain(seconds)

    def close(self) -> None:
        """End everything."""
        for engine in self.engines:
            engine.close()
        for queue in (self.reports, self.snapshots):
            queue.close()
        self._loader.shutdown(cancel_futures=True)
