"""Each module has a test file of its own at the same place under tests/, or a line here says which covers it."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COVERED_BY = {
    "app/__main__.py": "e2e/test_process.py",
    "app/api/answers.py": "e2e/test_compatibility.py",
    "app/api/dependencies.py": "e2e/test_generate.py",
    "app/api/info.py": "e2e/test_compatibility.py",
    "app/api/openai/responses.py": "e2e/test_openai.py",
    "app/api/openai/routes.py": "e2e/test_openai.py",
    "app/api/openai/schemas.py": "e2e/test_openai_refusals.py",
    "app/api/openapi.py": "e2e/test_fuzz.py",
    "app/api/report.py": "e2e/test_report.py",
    "app/api/responses.py": "app/api/test_resume.py",
    "app/api/routes.py": "e2e/test_generate.py",
    "app/api/schemas.py": "e2e/test_refusals.py",
    "app/api/score.py": "e2e/test_score.py",
    "app/api/snapshots.py": "e2e/test_analysis.py",
    "app/api/stream_response.py": "e2e/test_connections.py",
    "app/application.py": "e2e/test_origins.py",
    "app/export.py": "e2e/test_export.py",
    "app/health.py": "app/test_environment.py",
    "app/observability/exchange.py": "e2e/test_log_lines.py",
    "app/observability/middleware.py": "e2e/test_log_lines.py",
    "app/problems.py": "e2e/test_refusals.py",
    "app/security/api_keys.py": "e2e/test_protection.py",
    "app/security/middleware.py": "e2e/test_protection.py",
    "app/server/lifecycle.py": "e2e/test_process.py",
    "app/server/listening.py": "e2e/test_listening.py",
    "app/serving/request_handle.py": "app/serving/test_engine.py",
    "app/serving/snapshots.py": "e2e/test_page_report.py",
    "app/settings.py": "e2e/test_start.py",
    "app/web/files.py": "e2e/test_page.py",
    "app/web/linked_modules.py": "e2e/test_export.py",
    "app/web/page.py": "e2e/test_page.py",
    "app/web/qr_code.py": "e2e/test_page_share.py",
    "app/web/recording.py": "e2e/test_page_life.py",
    "app/web/single_file.py": "e2e/test_export.py",
    "app/web/weights.py": "e2e/test_page_here.py",
    "model/analysis/fuse_filter.py": "model/analysis/test_overlap.py",
    "model/analysis/measure.py": "model/analysis/test_report.py",
    "model/analysis/summary.py": "model/analysis/test_report.py",
    "model/analysis/text_index.py": "model/analysis/test_report.py",
    "model/backends/base.py": "model/generation/test_generator.py",
    "model/backends/cpu/amx.py": "model/backends/cpu/test_gemm.py",
    "model/backends/cpu/attention.py": "model/backends/cpu/test_backend.py",
    "model/backends/cpu/buffers.py": "model/backends/cpu/test_backend.py",
    "model/backends/cpu/forward.py": "model/backends/cpu/test_backend.py",
    "model/backends/cpu/multi_step.py": "model/generation/test_generator.py",
    "model/backends/cpu/worker_pool.py": "model/backends/cpu/test_backend.py",
    "model/backends/cuda/drawing.py": "model/backends/cuda/test_backend.py",
    "model/backends/cuda/kernels.py": "model/backends/cuda/test_backend.py",
    "model/backends/cuda/step.py": "model/backends/cuda/test_backend.py",
    "model/backends/cuda/table.py": "model/backends/cuda/test_backend.py",
    "model/browser_index.py": "e2e/test_browser_report.py",
    "model/cancellation.py": "app/serving/test_work.py",
    "model/errors.py": "model/test_cli.py",
    "model/generation/logprobs.py": "model/generation/test_score.py",
    "model/generation/receipt.py": "model/test_verify.py",
    "model/generation/slot_state.py": "model/generation/test_scheduler.py",
    "model/quantisation.py": "model/test_browser_weights.py",
    "model/sampling/kernels.py": "model/sampling/test_sampler.py",
    "model/sampling/ngram_kernels.py": "model/sampling/test_ngram_draft.py",
    "model/sampling/philox.py": "model/sampling/test_noise.py",
    "training/copies.py": "training/test_index.py",
    "training/draft.py": "model/sampling/test_ngram_draft.py",
    "training/evaluate.py": "training/test_folders.py",
    "training/optimizers.py": "training/test_trainer.py",
    "training/resume.py": "training/test_run_folder.py",
    "training/settings.py": "training/test_trainer.py",
    "training/train.py": "training/test_folders.py",
    "training/train_step.py": "training/test_trainer.py",
    "training/untrusted/checks.py": "training/test_untrusted.py",
    "training/untrusted/pickle_machine.py": "training/test_untrusted.py",
    "training/untrusted/plain_values.py": "training/test_untrusted.py",
    "training/untrusted/reading.py": "training/test_untrusted.py",
    "training/untrusted/tensors.py": "training/test_untrusted.py",
    "training/untrusted/torch_archive.py": "training/test_untrusted.py",
}


def modules_without_a_test_file() -> set[str]:
    """The modules whose mirror under tests/ does not exist."""
    found = set()
    for package in ("app", "model", "training"):
        for path in (ROOT / package).rglob("*.py"):
            module = path.relative_to(ROOT)
            if path.name != "__init__.py" and not (ROOT / "tests" / module.parent / f"test_{path.name}").exists():
                found.add(module.as_posix())
    return found


def test_every_other_module_is_covered_by_a_test_that_is_named() -> None:
    assert modules_without_a_test_file() == set(COVERED_BY)


@pytest.mark.parametrize("test", sorted(set(COVERED_BY.values())))
def test_the_tests_that_are_named_are_there(test: str) -> None:
    assert (ROOT / "tests" / test).is_file()
