package world

import (
	"context"
	"fmt"
)

// recordAll sets a history for the counters of Key, for all processes. The bound of records is higher than any run needs: a run must not
// count refused operations, and its sustained rate shows whether the flushes keep up.
func (s *Stage) recordAll() {
	s.tables = append(s.tables, "operations")
	s.settings = append(s.settings, "AFTERWRITE_HISTORY=counter:*", "AFTERWRITE_MAX_HISTORY=1000000000")
}

// Operations returns the number of recorded operations in Postgres, and the bytes of their partitions with the indexes.
func (s *Stage) Operations(ctx context.Context) (operations, bytes int64, err error) {
	const query = `
SELECT (SELECT count(*) FROM operations),
	(SELECT coalesce(sum(pg_total_relation_size(relid)), 0)::bigint FROM pg_partition_tree('operations') WHERE isleaf)`
	if err := s.DB.QueryRowContext(ctx, query).Scan(&operations, &bytes); err != nil {
		return 0, 0, fmt.Errorf("count the recorded operations: %w", err)
	}
	return operations, bytes, nil
}
