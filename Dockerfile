# syntax=docker/dockerfile:1.7
# The commands `sawmill` and `client` in a small image that runs as a user without rights.

FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
# The target directory is a cache and not part of the layer, so the two files are copied out of it.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/target,sharing=locked \
    CARGO_TARGET_DIR=/target cargo build --release --locked --package sawmill --bins \
    && install -D -t /out /target/release/sawmill /target/release/client

FROM debian:bookworm-slim
# gawk: the mawk of the base image is not what most people write their counting for.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates gawk \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/sawmill sawmill \
    && install -d -o sawmill -g sawmill /var/lib/sawmill /var/lib/sawmill/store
COPY --from=build /out/ /usr/local/bin/
USER sawmill
WORKDIR /var/lib/sawmill
ENTRYPOINT ["sawmill"]
CMD ["--help"]
