// Package verify looks for damage in a replica.
package verify
