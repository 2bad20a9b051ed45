package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/afterwrite/afterwrite/internal/process"
)

// counter is the content of an answer.
type counter struct {
	key     string
	value   int64
	version int64
	synced  bool
}

// increment increments a counter in the way of a peer.
type increment func(ctx context.Context, key string, by int64) (counter, error)

// serve serves increments on $ADDR until SIGTERM. Each function in more adds routes.
func serve(add increment, more ...func(*echo.Echo)) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	listener, err := process.Listen(os.Getenv("ADDR"), "ADDR")
	if err != nil {
		return err
	}
	return process.DefaultLimits().Serve(ctx, listener, handler(add, more...), slog.Default())
}

func handler(add increment, more ...func(*echo.Echo)) http.Handler {
	registry := prometheus.NewRegistry()
	duration := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "peer_write_duration_seconds",
		Help: "Time from a decoded request to its outcome.",
		Buckets: []float64{
			100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1, 2.5, 5, 10,
		},
	})
	registry.MustRegister(duration)

	e := echo.New()
	e.Pre(edge)
	e.GET("/healthz", func(c echo.Context) error { return c.NoContent(http.StatusOK) })
	e.GET("/metrics", echo.WrapHandler(promhttp.HandlerFor(registry, promhttp.HandlerOpts{})))
	e.POST("/v1/counters/:key/increment", func(c echo.Context) error {
		by, err := readBy(c.Request())
		if err != nil {
			return echo.NewHTTPError(http.StatusBadRequest, err.Error())
		}
		began := time.Now()
		n, err := add(c.Request().Context(), c.Param("key"), by)
		duration.Observe(time.Since(began).Seconds())
		if err != nil {
			return err
		}
		return answer(c, n)
	})
	for _, route := range more {
		route(e)
	}
	return e
}

// edge is the middleware of every request, as in the api.
func edge(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		id := c.Request().Header.Get(echo.HeaderXRequestID)
		if id == "" {
			id = rand.Text()
		}
		c.Response().Header().Set(echo.HeaderXRequestID, id)
		defer func() {
			if v := recover(); v != nil {
				err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
			}
		}()
		return next(c)
	}
}

// env returns a required environment variable.
func env(name string) string {
	value := os.Getenv(name)
	if value == "" {
		exit(fmt.Errorf("%s is not set", name))
	}
	return value
}

// exit ends the process. If err is not nil it prints err, and the exit status is 1.
func exit(err error) {
	if err == nil {
		os.Exit(0)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
