package main

import "slices"

// median returns the middle of values, the mean of the two middle ones if their number is even, and
// 0 if there are none. It leaves values as they are.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	mid := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[mid]
	}
	return (sorted[mid-1] + sorted[mid]) / 2
}

// percentile returns the smallest of the sorted values that at least p percent of them do not
// exceed (the nearest rank), and 0 if there are none.
func percentile(sorted []int64, p int) int64 {
	if len(sorted) == 0 {
		return 0
	}
	rank := (len(sorted)*p + 99) / 100
	return sorted[max(rank, 1)-1]
}

// each applies pick to every sample.
func each[T any](values []T, pick func(T) float64) []float64 {
	out := make([]float64, len(values))
	for i, v := range values {
		out[i] = pick(v)
	}
	return out
}

// ratios divides round by round. A round whose divisor is 0 says nothing and is left out.
func ratios(of, by []float64) []float64 {
	var out []float64
	for i := range min(len(of), len(by)) {
		if by[i] != 0 {
			out = append(out, of[i]/by[i])
		}
	}
	return out
}
