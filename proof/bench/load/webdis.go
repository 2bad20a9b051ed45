package load

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/local"
)

// Webdis starts webdis in front of a Redis, and blocks until it is ready. It uses the settings of the Debian package, with one thread
// for each of two cores.
func Webdis(ctx context.Context, redisURL string) (*Process, error) {
	program, err := find("webdis", "webdis")
	if err != nil {
		return nil, err
	}
	options, err := redis.ParseURL(redisURL)
	if err != nil {
		return nil, fmt.Errorf("webdis: %w", err)
	}
	port, err := local.FreePort()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "afterwrite-webdis-")
	if err != nil {
		return nil, err
	}
	cleanUp := func() { _ = os.RemoveAll(dir) }
	file, err := writeWebdisConfig(dir, options, port)
	if err != nil {
		cleanUp()
		return nil, fmt.Errorf("webdis: %w", err)
	}
	webdis := local.Program{Path: program, Args: []string{file}, Dir: dir, OnExit: cleanUp}
	return start(ctx, webdis, "http://127.0.0.1:"+strconv.Itoa(port), "/PING")
}

// writeWebdisConfig writes the configuration into dir, and returns the file's path.
func writeWebdisConfig(dir string, options *redis.Options, port int) (string, error) {
	config := map[string]any{
		"redis_host": options.Addr, "database": options.DB, "http_host": "127.0.0.1", "http_port": port,
		"threads": 2, "pool_size": 20, // connections to Redis for each thread
		"daemonize": false, "verbosity": 1, "logfile": filepath.Join(dir, "webdis.log"),
		"acl": []map[string]any{{"disabled": []string{"DEBUG"}}}, // webdis requires a list
	}
	if options.Password != "" {
		config["redis_auth"] = options.Password
	}
	if options.Network != "unix" {
		host, redisPort, err := net.SplitHostPort(options.Addr)
		if err != nil {
			return "", err
		}
		config["redis_host"] = host
		config["redis_port"], _ = strconv.Atoi(redisPort) // redis.ParseURL has checked it
	}
	text, err := json.Marshal(config)
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "webdis.json")
	return file, os.WriteFile(file, text, 0o600)
}
