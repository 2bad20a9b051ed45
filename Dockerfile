# Compiles on the builder's own platform for the image's: no emulation.
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
# Modules first: they change less often than the code, so they stay cached.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev COMMIT= DATE= TARGETOS TARGETARCH
RUN GOOS=${TARGETOS} GOARCH=${TARGETARCH} make build VERSION="${VERSION}" COMMIT="${COMMIT}" DATE="${DATE}" BINARY=/afterwrite

# Only the binary and the root certificates for TLS to Redis and Postgres: no shell, no packages.
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /afterwrite /afterwrite
USER 65532:65532
ENTRYPOINT ["/afterwrite"]
CMD ["--help"]
