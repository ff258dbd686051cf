# An image with nothing but nchf.
#
#   docker build -t nchf .
#   docker run --rm -p 8000:8000 -p 8001:8001 -e NCHF_ADMIN_TOKEN=secret -v nchf:/var/lib/nchf nchf serve --demo
#
# Inside a container both listeners have to be on all addresses, or nobody outside reaches them. nchf therefore does not
# start without NCHF_ADMIN_TOKEN (or admin.token in a file that NCHF_CONFIG names). A browser that opens
# http://127.0.0.1:8001/docs asks for name and password: any name, and the token.

FROM rust:1-slim-bookworm AS build
WORKDIR /src

# The dependencies are a layer of their own, built again only when one of these two files changes.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src tests/it \
    && echo 'fn main() {}' > src/main.rs \
    && echo 'fn main() {}' > tests/it/main.rs \
    && touch src/lib.rs \
    && cargo build --release --locked

COPY migrations-redis migrations-redis
COPY src src
# What was built in place of the program must look older than the program.
RUN touch src/lib.rs src/main.rs \
    && cargo build --release --locked

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --user-group --home-dir /var/lib/nchf --shell /usr/sbin/nologin nchf \
    && install --directory --owner=nchf --group=nchf --mode=0750 /var/lib/nchf
COPY --from=build /src/target/release/nchf /usr/local/bin/nchf

# By number, so that an orchestrator can tell that it is not root.
USER 10001:10001
WORKDIR /var/lib/nchf
# The embedded store and the CDR files, in ./nchf-data. With a store on Redis only the CDR files.
VOLUME /var/lib/nchf

ENV NCHF_LISTEN=0.0.0.0:8000 \
    NCHF_ADMIN_LISTEN=0.0.0.0:8001
EXPOSE 8000 8001

HEALTHCHECK --interval=5s --timeout=4s --start-period=30s CMD ["nchf", "health"]

# SIGTERM drains for up to http.drain_secs (20): give `docker stop` more than its ten seconds.
ENTRYPOINT ["nchf"]
CMD ["serve"]
