# gatepost in a container: `docker build -t gatepost .`, then, with gatepost.toml in ./config,
#
#   docker run -p 80:80 -v ./config:/etc/gatepost:ro -v gatepost-state:/var/lib/gatepost gatepost
#
# What it says, and the access log unless `log.access` says otherwise, go to standard output. Save the file, and it is in force, as everywhere.

FROM rust:1-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin gatepost && strip target/release/gatepost
# The packaged config, with its access log where a container's belongs.
RUN sed -i 's|^access = .*|access = "stdout"|' conf/gatepost.toml

FROM debian:12-slim
# Whom gatepost trusts when it calls a function by https; the user; and the folders that are his.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --system --gid 990 gatepost \
 && useradd --system --uid 990 --gid 990 --home-dir /var/lib/gatepost --shell /usr/sbin/nologin gatepost \
 && install -d -o gatepost -g gatepost -m 750 /var/lib/gatepost /var/log/gatepost /run/gatepost
COPY --from=build /src/target/release/gatepost /usr/bin/gatepost
COPY --from=build /src/conf/gatepost.toml /etc/gatepost/gatepost.toml
# By number, so that whoever wants to know that it is not root needs no look into the image. Ports below 1024 are open to it under Docker;
# elsewhere it may want the capability NET_BIND_SERVICE, or higher ports.
USER 990:990
# As in the unit: 14 MiB less.
ENV MIMALLOC_ALLOW_THP=0
VOLUME /var/lib/gatepost
EXPOSE 80 443
# The admin address is the container's own loopback: `docker exec CONTAINER gatepost status`.
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s CMD ["/usr/bin/gatepost", "status"]
# It drains. Let `docker stop --time` be above `server.drain` (30 s).
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/gatepost"]
CMD ["run"]
