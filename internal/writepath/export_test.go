package writepath

// Looked is how many operations wait for Postgres that have been looked at.
func Looked(s *Service) int {
	s.waiters.mu.Lock()
	defer s.waiters.mu.Unlock()
	n := 0
	for _, targets := range s.waiters.shards {
		for t := range targets {
			if t.looked {
				n++
			}
		}
	}
	return n
}
