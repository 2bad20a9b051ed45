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

// otherName stands for the names of unknown commands beyond maxUnknown, and of clients that have not signed in.
const otherName = "(other)"

// unknown counts an unknown command. The number of names is bounded, because clients can invent them. Those of a client that has not
// signed in are not kept: they may be passwords, or meant to use up the names.
func (m *metrics) unknown(name []byte, admitted bool) {
	label := otherName
	if admitted {
		label = m.unknownName(strings.ToLower(excerpt(name)))
	}
	m.unknowns.WithLabelValues(label).Inc()
}

// unknownName returns the label for an unknown command.
func (m *metrics) unknownName(name string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.names[name] {
		if len(m.names) >= maxUnknown {
			return otherName
		}
		m.names[name] = true
	}
	return name
}
