package local

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// clusterMajor is the PostgreSQL version that made the data in dir; 0 when there is none yet.
func clusterMajor(dir string) int {
	text, err := os.ReadFile(filepath.Join(dir, clusterName, "PG_VERSION"))
	if err != nil {
		return 0
	}
	major, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return major
}

// initCluster makes the data directory with initdb, if it is missing. It is made under another name first, so that a run that is
// cut off leaves nothing that looks complete.
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
		// C: keys sort by their bytes, as they do in Go, and every system has it.
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
