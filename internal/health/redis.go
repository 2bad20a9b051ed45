package health

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/cache"
)

// readInfo reads INFO. If an ACL forbids that, or no master of a cluster answers, nothing is known, which is not an error: counters are not
// affected.
func (s *sampler) readInfo(ctx context.Context) error {
	info, err := cache.ReadInfo(ctx, s.redis)
	if _, refused := errors.AsType[redis.Error](err); err != nil && !refused && s.cluster == nil {
		return err
	}
	s.info = info
	return nil
}
