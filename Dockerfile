# syntax=docker/dockerfile:1
# Builds the program and puts it with the shipped models into an image without a shell.

FROM rust:1.95-bookworm AS build
# A caller may mount a warm target folder and name it here; by default it is a cache of the builder.
ARG CARGO_TARGET_DIR=/src/target
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked && cp "$CARGO_TARGET_DIR/release/sconce" /sconce
# A volume over one of them takes its owner from the folder in the image.
RUN mkdir -m 700 /data && mkdir /cache

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /sconce /sconce
COPY config /config
COPY --chown=65532:65532 models /models
COPY --from=build --chown=65532:65532 /data /data
COPY --from=build --chown=65532:65532 /cache /cache
# 127.0.0.1 would be the container's own.
ENV SCONCE__HTTP__LISTEN=0.0.0.0:8080
EXPOSE 8080
# By number, so that Kubernetes can see that it is not root.
USER 65532:65532
WORKDIR /
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["/sconce", "health"]
ENTRYPOINT ["/sconce"]
CMD ["serve"]
