package cache

// ApplyScript returns the text of apply.lua, for the benchmark that measures it alone.
func ApplyScript() string { return applySource }
