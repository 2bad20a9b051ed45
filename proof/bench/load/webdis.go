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

// webdisConfig is what webdis reads from its file.
type webdisConfig struct {
	RedisHost string           `json:"redis_host"` // or the path of a socket
	RedisPort int              `json:"redis_port"`
	RedisAuth string           `json:"redis_auth,omitempty"`
	Database  int              `json:"database"`
	HTTPHost  string           `json:"http_host"`
	HTTPPort  int              `json:"http_port"`
	Threads   int              `json:"threads"`
	PoolSize  int              `json:"pool_size"` // connections to Redis per thread
	Daemonize bool             `json:"daemonize"`
	Verbosity int              `json:"verbosity"`
	LogFile   string           `json:"logfile"`
	ACL       []map[string]any `json:"acl"`
}

// Webdis runs webdis in front of a Redis and blocks until it answers. It has the settings of its package, and a thread for each of
// two cores.
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

// writeWebdisConfig writes the settings into dir and returns the file's path.
func writeWebdisConfig(dir string, options *redis.Options, port int) (string, error) {
	config := webdisConfig{
		RedisHost: options.Addr, RedisAuth: options.Password, Database: options.DB,
		HTTPHost: "127.0.0.1", HTTPPort: port, Threads: 2, PoolSize: 20,
		Verbosity: 1, LogFile: filepath.Join(dir, "webdis.log"),
		ACL: []map[string]any{{"disabled": []string{"DEBUG"}}}, // it wants a list
	}
	if options.Network != "unix" {
		host, redisPort, err := net.SplitHostPort(options.Addr)
		if err != nil {
			return "", err
		}
		config.RedisHost = host
		config.RedisPort, _ = strconv.Atoi(redisPort) // redis.ParseURL has checked it
	}
	text, err := json.Marshal(config)
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "webdis.json")
	return file, os.WriteFile(file, text, 0o600)
}
