package cache

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Time-outs of the connections to Redis. They bound how long a write can hang: if Redis does not answer within ioTimeout, the outcome is
// unknown.
const (
	dialTimeout = time.Second
	ioTimeout   = 3 * time.Second
	poolTimeout = time.Second
)

// Connect returns a client for rawURL, without connecting yet. It accepts these forms:
//
//	redis://[user:password@]host:port/db          rediss:// the same with TLS
//	unix:///path/to/redis.sock?db=0
//	redis-sentinel://[user:password@]host:port,host:port/db?master=name   rediss-sentinel:// the same with TLS
//	redis-cluster://[user:password@]host:port,host:port                   rediss-cluster:// the same with TLS
//
// The user and password are those of the servers. Sentinels that have one of their own get the parameters sentinel_username and
// sentinel_password.
//
// The client never retries: a command whose answer was lost may have run, and an increment must not run twice. maxConns bounds its
// connections; 0 is the library's default.
//
//nolint:ireturn // the type of the client depends on the URL
func Connect(rawURL string, maxConns int) (redis.UniversalClient, error) {
	return ConnectTLS(rawURL, TLSFiles{}, maxConns)
}

// ConnectTLS is Connect with a CA, or a client certificate, of its own.
//
//nolint:ireturn // the type of the client depends on the URL
func ConnectTLS(rawURL string, files TLSFiles, maxConns int) (redis.UniversalClient, error) {
	o, err := ParseURL(rawURL)
	if err != nil {
		return nil, err
	}
	if err := files.apply(o); err != nil {
		return nil, err
	}
	o.MaxRetries = -1
	o.MaxRedirects = -1 // on a cluster this bounds retries, even of calls whose answer was lost
	o.DialerRetries = 1
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = dialTimeout, ioTimeout, ioTimeout, poolTimeout
	o.ContextTimeoutEnabled = true
	o.PoolSize = maxConns
	o.PipelinePoolSize = -1 // no second pool for pipelines, beside the one that maxConns bounds
	o.ClientName = "afterwrite"
	// Only some hosted services send these notifications, and requesting them costs a round trip at each connect.
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	if o.MasterName != "" {
		o.Dialer = sentinelDialer(o)
	}
	client := redis.NewUniversalClient(o)
	switch c := client.(type) {
	case *redis.ClusterClient:
		followCluster(c)
	case *redis.Client:
		if o.MasterName != "" {
			followSentinel(c, o)
		} else {
			followServer(c)
		}
	}
	return client, nil
}

// ParseURL reads rawURL in one of the forms of Connect. Its error never contains the URL, which may contain a password.
func ParseURL(rawURL string) (*redis.UniversalOptions, error) {
	scheme, _, _ := strings.Cut(rawURL, "://")
	var o *redis.UniversalOptions
	var err error
	switch scheme {
	case "redis", "rediss", "unix":
		o, err = parseSingle(rawURL)
	case "redis-sentinel", "rediss-sentinel", "redis-cluster", "rediss-cluster":
		o, err = parseMany(rawURL)
	default:
		err = fmt.Errorf("it starts with %q", scheme)
	}
	if err != nil {
		return nil, fmt.Errorf("REDIS_URL cannot be used: %w; it must begin with redis://, rediss://, unix://, "+
			"redis-sentinel:// or redis-cluster://", err)
	}
	return o, nil
}

func parseSingle(rawURL string) (*redis.UniversalOptions, error) {
	o, err := redis.ParseURL(rawURL)
	if err != nil {
		return nil, withoutURL(err)
	}
	return &redis.UniversalOptions{
		Addrs: []string{o.Addr}, Username: o.Username, Password: o.Password, DB: o.DB, TLSConfig: o.TLSConfig,
		Protocol: o.Protocol,
	}, nil
}

func parseMany(rawURL string) (*redis.UniversalOptions, error) {
	// A URL cannot hold a list of hosts: parse it without the list.
	scheme, rest, _ := strings.Cut(rawURL, "://")
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	authority := rest[:end]
	hosts := authority[strings.LastIndex(authority, "@")+1:]
	u, err := url.Parse("redis://" + strings.TrimSuffix(authority, hosts) + "many" + rest[end:])
	if err != nil {
		return nil, withoutURL(err)
	}
	o := &redis.UniversalOptions{Addrs: strings.Split(hosts, ","), Username: u.User.Username()}
	o.Password, _ = u.User.Password()
	if strings.HasPrefix(scheme, "rediss") {
		o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if strings.HasSuffix(scheme, "cluster") {
		o.IsClusterMode = true
		return o, nil
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errors.New("its parameters must be URL-encoded") // the error may quote a password
	}
	if o.MasterName = query.Get("master"); o.MasterName == "" {
		return nil, errors.New("it must name a master (?master=mymaster)")
	}
	o.SentinelUsername, o.SentinelPassword = query.Get("sentinel_username"), query.Get("sentinel_password")
	if db := strings.Trim(u.Path, "/"); db != "" {
		if o.DB, err = strconv.Atoi(db); err != nil {
			return nil, errors.New("its path must be a database number")
		}
	}
	return o, nil
}

// withoutURL drops the URL that package url puts into its errors.
func withoutURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}
