# CPU by default: PyTorch's CPU build is a tenth of its CUDA build. For CUDA: --build-arg TORCH_INDEX=
FROM python:3.11.15-slim-bookworm AS base

FROM base AS builder
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY pyproject.toml requirements.lock ./
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
      print(*project['dependencies'], *project['optional-dependencies']['tracing'], sep='\n')" > requirements.txt \
    && pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
      --requirement requirements.txt --constraint requirements.lock \
    # what the lock does not name would be another version tomorrow; versions of pip spell names with - or with _
    && sed 'y/_/-/' requirements.lock > locked.txt \
    && ! pip freeze | sed 's/+.*//; y/_/-/' | grep -vxFf locked.txt \
    # headers, tests and tools are for building upon PyTorch, not for running it
    && cd /opt/venv/lib/python3.11/site-packages \
    && rm -rf torch/include torch/test torch/share/cmake pip setuptools \
    && find torch/bin -type f ! -name torch_shm_manager -delete

FROM base
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# Triton, which PyTorch's CUDA build brings, compiles its own way to the GPU where it meets one
RUN if [ -z "$TORCH_INDEX" ]; then apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*; fi
RUN useradd --uid 10001 --no-create-home soliloquy
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY --from=builder /opt/venv /opt/venv
WORKDIR /app
COPY model model
COPY training training
COPY app app
COPY static static
COPY templates templates
COPY checkpoints/shakespeare-char checkpoints/shakespeare-char
COPY checkpoints/shakespeare-char-snapshots checkpoints/shakespeare-char-snapshots
# where compiled code is kept: what this build's machine compiles, like machines need not; others do once, in a volume
ENV NUMBA_CACHE_DIR=/var/cache/soliloquy TRITON_CACHE_DIR=/var/cache/soliloquy/triton
RUN install -d -o 10001 /var/cache/soliloquy
# by number, so that Kubernetes can tell that it is not root
USER 10001
RUN python -m model.sample --num_samples=1 --max_new_tokens=50 --device=cpu > /dev/null
ENV SOLILOQUY_HOST=0.0.0.0 SOLILOQUY_LOG_FORMAT=json
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=3s --start-period=120s CMD ["python", "-m", "app.health"]
CMD ["python", "-m", "app"]
