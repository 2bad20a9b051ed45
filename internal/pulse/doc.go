// Package pulse lets every process say in Redis, once a second, that it runs and what it has counted: what the dashboard
// needs to know of processes that it cannot reach.
//
//   - Each process has a Beater. A beat is one script call of some hundred bytes, outside of the path of requests. While a process
//     has nothing new to say, every other beat is left out. When Redis does not answer, a beat is lost and nothing else: the wait
//     is bounded, and logged once.
//   - Read returns what all processes said last. Counts begin with the process, whose ID is never used again, so they
//     never go back: rates are for the reader to make, from two beats of one process (package sample).
//
// All of it is in one hash, aw:pulse: ID -> ms by Redis's clock, a space, and a Pulse as JSON. A process that ends in an orderly
// way takes its entry along; one that was killed is shown as gone, until Prune forgets it.
package pulse
