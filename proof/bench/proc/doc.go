// Package proc reads how much CPU time processes have used, from Linux's /proc.
package proc
