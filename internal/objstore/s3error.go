package objstore

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/minio/minio-go/v7"
)

// errUnsupported is a refusal because the store lacks a feature.
var errUnsupported = fmt.Errorf("%w: the store does not support it", ErrRefused)

// fail is the one place where an answer of the store becomes an error of this
// package. ctx is the one of the request, whose cause tells our deadlines from
// the caller's.
func (s *s3Store) fail(ctx context.Context, verb string, noun any, err error) error {
	var r minio.ErrorResponse
	switch {
	case errors.As(err, &r) && r.Code != "":
		err = s.answer(r)
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	return fmt.Errorf("%s %v: %w", verb, noun, err)
}

// answer classes an error response. It repeats the store's own message only
// where it has no better one, and never what was a credential.
func (s *s3Store) answer(r minio.ErrorResponse) error {
	code := s.chain.mask(r.Code)
	said := fmt.Sprintf("%s answered %d %s", s.host, r.StatusCode, code)
	if r.StatusCode == 0 { // the library's own complaint, or an error within a 200
		said = fmt.Sprintf("%s answered %s", s.host, code)
	}
	switch r.Code {
	case "NoSuchKey":
		return fmt.Errorf("%w (%s)", ErrNotExist, said)
	case "PreconditionFailed":
		return fmt.Errorf("%w (%s)", ErrExist, said)
	case "NoSuchBucket":
		return fmt.Errorf("%w: bucket %q does not exist at %s: create it or correct replica=", ErrRefused, s.bucket, s.host)
	case "InvalidBucketName":
		return fmt.Errorf("%w: %s takes no bucket named %q: correct replica=", ErrRefused, s.host, s.bucket)
	case "InvalidAccessKeyId", "XAdminUserNotFound": // the second is versitygw's
		return s.denied("the store does not know the access key: check AWS_ACCESS_KEY_ID", said)
	case "SignatureDoesNotMatch":
		return s.denied("the secret key is not the access key's: check AWS_SECRET_ACCESS_KEY", said)
	case "ExpiredToken", "ExpiredTokenException", "InvalidToken":
		return s.denied("the token of these temporary credentials is not valid any more: renew it (AWS_SESSION_TOKEN)", said)
	case "RequestTimeTooSkewed":
		return fmt.Errorf("%w: this machine's clock differs from the store's: set the clock (%s)", ErrRefused, said)
	case "PermanentRedirect", "AuthorizationHeaderMalformed", "InvalidRegion", "IllegalLocationConstraintException":
		where := ""
		if r.Region != "" && r.Region != s.region {
			where = fmt.Sprintf(", it is in %q", r.Region)
		}
		return fmt.Errorf("%w: bucket %q is not in region %q%s: correct region= or endpoint= (%s)", ErrRefused, s.bucket, s.region, where, said)
	case "InvalidRange":
		return ErrRange
	case "NotImplemented":
		return fmt.Errorf("%w (%s)", errUnsupported, said)
	}
	switch r.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return s.denied("check the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE) "+
			"and that they may list the bucket and get, put and delete its objects", said)
	case http.StatusPreconditionFailed:
		return fmt.Errorf("%w (%s)", ErrExist, said)
	case http.StatusMovedPermanently:
		return fmt.Errorf("%w: bucket %q is elsewhere: correct region= or endpoint= (%s)", ErrRefused, s.bucket, said)
	case http.StatusNotImplemented:
		return fmt.Errorf("%w (%s)", errUnsupported, said)
	}
	if m := s.chain.mask(r.Message); m != "" {
		said += ": " + m
	}
	return errors.New(said)
}

// denied also lets the credentials be looked up again for the next request:
// whoever changes the credentials file should not have to start anew.
func (s *s3Store) denied(todo, said string) error {
	s.creds.Expire()
	return fmt.Errorf("%w: access denied for bucket %q: %s (%s)", ErrRefused, s.bucket, todo, said)
}
