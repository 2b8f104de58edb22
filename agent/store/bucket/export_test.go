package bucket

// Expires reports whether parts stay until the service removes them.
func (s *Store) Expires() bool { return s.limits.Expire > 0 }
