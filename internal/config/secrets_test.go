package config_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/config"
)

func TestSecretsAreFoundInEveryForm(t *testing.T) {
	t.Parallel()
	const hash = "$2a$12$qncv5I/YeXsvln7FT8FVCOibsozHQoC8WyW4lOQV5BPP6vFex3bZy"
	const digest = "4e2f30ee4e11a77a4d0a66c4c82c4895dc6cfd52713979742d40e3d83fc8f8c4"
	for _, test := range []struct{ name, text, secret string }{
		{"REDIS_URL", "redis://:hunter2@h:6379/0", "hunter2"},
		{"REDIS_URL", "redis://user:hunter2@h/0?protocol=3", "hunter2"},
		{"REDIS_URL", "redis-sentinel://user:hunter2@h1:1,h2:2/0?master=m", "hunter2"},
		{"REDIS_URL", "redis-sentinel://user:pw@h1:1,h2:2/0?master=m&sentinel_password=hun%2Bter2", "hun+ter2"},
		{"REDIS_URL", "redis-sentinel://h1:1/0?sentinel_password=hun%2Bter2&master=m", "hun%2Bter2"},
		{"REDIS_URL", "unix://user:hunter2@/run/redis.sock?db=1", "hunter2"},
		{"REDIS_URL", "redis://:hun/ter2@h:%zz", "hun/ter2"},
		{"DATABASE_URL", "postgres://u:p%40ss%2Fword@h/db", "p@ss/word"},
		{"DATABASE_URL", "postgres://u:p%40ss%2Fword@h/db", "p%40ss%2Fword"},
		{"DATABASE_URL", "postgres://u:hun@ter2@h/db?options=a@b", "hun@ter2"},
		{"DATABASE_URL", "postgres://u:hunter2@h1:1,h2:2/db", "hunter2"},
		{"AFTERWRITE_DATABASE_READ_URL", "postgres://u:hunter2@h1:1,[::1]:2/db", "hunter2"},
		{"DATABASE_URL", "postgres://h/db?user=u&password=hunter2", "hunter2"},
		{"DATABASE_URL", "host=h password=hunter2 dbname=d", "hunter2"},
		{"DATABASE_URL", `host=h password = 'hun \'ter2' dbname=d`, `hun 'ter2`},
		{"PGPASSWORD", "hunter2", "hunter2"},
		{"AFTERWRITE_ADMIN_TOKEN", "0123456789abcdef", "0123456789abcdef"},
		{"AFTERWRITE_API_KEYS", "a:hunter2hunter2hunter2:read", "hunter2hunter2hunter2"},
		{"AFTERWRITE_API_KEYS", "a:" + digest + ":read,b:x", digest},
		{"AFTERWRITE_API_KEYS_FILE", "a:" + digest + ":read", digest},
		{"AFTERWRITE_API_OPEN", "aw_FKLtfnZDf7uiYl3ZUcmxDKb3BNAPAB88BiqKFXz3K7c", "aw_FKLtfnZDf7uiYl3ZUcmxDKb3BNAPAB88BiqKFXz3K7c"},
		{"OTEL_EXPORTER_OTLP_HEADERS", "a=b, authorization=Bearer%20hunter2", "Bearer hunter2"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "https://u:hunter2@collector", "hunter2"},
		{"AFTERWRITE_DASHBOARD_USERS", "ann:" + hash + ",bob:operator:$2y$10$geheim", hash},
		{"AFTERWRITE_DASHBOARD_USERS", "ann:" + hash + ",bob:operator:$2y$10$geheim", "$2y$10$geheim"},
		{"AFTERWRITE_DASHBOARD_OPERATORS", "ann:operator:" + hash, hash},
		{"AFTERWRITE_DASHBOARD_TRUSTED_PROXIES", "10.0.0.1, ann:" + hash, hash},
	} {
		require.Contains(t, config.Secrets(map[string]string{test.name: test.text}), test.secret, test.text)
	}
	require.Empty(t, config.Secrets(map[string]string{"REDIS_URL": "redis://h:6379/0", "DATABASE_URL": "postgres://u@h/db"}))
	require.Empty(t, config.Secrets(nil))
}

func TestSecretsHidesCommonWordsOnlyAsPasswords(t *testing.T) {
	t.Parallel()
	url := "postgres://afterwrite:afterwrite@h/afterwrite"
	secrets := config.Secrets(map[string]string{"DATABASE_URL": url, "REDIS_URL": "redis://:a@h"})
	for _, secret := range secrets {
		require.NotContains(t, "run `afterwrite migrate`", secret)
	}
	found := false
	for _, secret := range secrets {
		found = found || strings.Contains(url, secret)
	}
	require.True(t, found)
}
