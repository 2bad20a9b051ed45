package local

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// clusterMajor returns the major PostgreSQL version of the data in dir, or 0 if there is no data.
func clusterMajor(dir string) int {
	text, err := os.ReadFile(filepath.Join(dir, clusterName, "PG_VERSION"))
	if err != nil {
		return 0
	}
	major, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return major
}

// initCluster creates the data directory with initdb if it is missing. It is created under another name and then renamed, so that an
// interrupted run leaves no incomplete data directory.
func (p *Postgres) initCluster(ctx context.Context, cluster string) error {
	if _, err := os.Stat(cluster); err == nil {
		return nil
	}
	unfinished := cluster + ".new"
	if err := os.RemoveAll(unfinished); err != nil {
		return notWritable(p.dir, err)
	}

	args := []string{
		"--pgdata=" + unfinished, "--username=" + databaseUser, "--auth=scram-sha-256",
		"--pwfile=" + filepath.Join(p.dir, "password"),
		// C sorts keys by their bytes, as Go does, and exists on every system.
		"--encoding=UTF8", "--locale=C",
	}
	if !p.opts.Fsync {
		args = append(args, "--no-sync")
	}
	initdb := Program{Path: filepath.Join(p.binDir, "initdb"), Args: args, Dir: p.dir, Env: postgresEnv(), cred: p.cred}
	if _, err := initdb.Run(ctx); err != nil {
		return err
	}
	if err := os.Rename(unfinished, cluster); err != nil {
		return notWritable(p.dir, err)
	}
	return nil
}
