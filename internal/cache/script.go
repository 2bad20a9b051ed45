package cache

// ApplyScript returns the text of apply.lua and of what stands before it, for the benchmark that measures it alone.
func ApplyScript() string { return entrySource + applySource }
