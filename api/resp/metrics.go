package resp

import (
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/afterwrite/afterwrite/api/metric"
)

// metrics holds the shared metrics of the api, and those of this protocol.
type metrics struct {
	*metric.Metrics

	commands *prometheus.CounterVec
	unknowns *prometheus.CounterVec
	refused  prometheus.Counter
	slow     prometheus.Counter

	mu    sync.Mutex
	names map[string]bool // of unknown commands that are counted by name
}

func newMetrics(registry prometheus.Registerer, open func() float64) *metrics {
	m := &metrics{
		Metrics: metric.In(registry, codes()),
		commands: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "afterwrite_resp_commands_total",
			Help: "Commands over the Redis protocol, by name.",
		}, []string{"command"}),
		unknowns: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "afterwrite_resp_unknown_commands_total",
			Help: "Commands over the Redis protocol that afterwrite does not have, by name; past 32 names, the others count as (other).",
		}, []string{"command"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "afterwrite_resp_refused_connections_total",
			Help: "Connections over the Redis protocol that were refused because there were too many.",
		}),
		slow: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "afterwrite_resp_slow_connections_total",
			Help: "Connections over the Redis protocol that were closed because their clients did not read the answers.",
		}),
		names: make(map[string]bool),
	}
	m.unknowns.WithLabelValues(otherName) // so that the metric is there from the start
	registry.MustRegister(m.commands, m.unknowns, m.refused, m.slow, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "afterwrite_resp_connections",
		Help: "Open connections over the Redis protocol. One process takes 4,096.",
	}, open))
	return m
}

// otherName stands for the names of unknown commands beyond maxUnknown.
const otherName = "(other)"

// unknown counts an unknown command. The number of names is bounded, because clients can invent them.
func (m *metrics) unknown(name []byte) {
	label := strings.ToLower(excerpt(name))
	m.mu.Lock()
	if !m.names[label] {
		if len(m.names) >= maxUnknown {
			label = otherName
		} else {
			m.names[label] = true
		}
	}
	m.mu.Unlock()
	m.unknowns.WithLabelValues(label).Inc()
}
