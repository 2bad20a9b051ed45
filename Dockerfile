FROM golang:1.26 AS build
WORKDIR /src
# Modules first: they change less often than the code, and so stay cached.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags "-s -w -X github.com/afterwrite/afterwrite/internal/command.version=${VERSION}" -o /afterwrite .

# Nothing but the binary and the roots that TLS to Redis and Postgres is checked against: no shell, no packages.
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /afterwrite /afterwrite
USER 65532:65532
ENTRYPOINT ["/afterwrite"]
CMD ["--help"]
