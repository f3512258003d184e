# docker build -t calve . ; the project folder is mounted at /project
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends perl make && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin calve && cp target/release/calve /usr/local/bin/calve

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home calve
COPY --from=build /usr/local/bin/calve /usr/local/bin/calve
USER calve
WORKDIR /project
EXPOSE 8642
ENTRYPOINT ["calve"]
CMD ["run"]
