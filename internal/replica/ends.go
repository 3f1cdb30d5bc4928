package replica

import (
	"context"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/group"
	"github.com/walferry/walferry/internal/objstore"
)

// looks is how many files are looked into at a time, or wait for their turn: 8 MB at most, however
// many a plan has.
const looks = 64

// ends are those of a plan's files, on their way from the store.
type ends struct {
	ctx    context.Context // ends with the first error
	cancel context.CancelFunc
	g      *group.Group

	objects []objstore.Object
	files   []chan *file  // of each object; closed without one on an error
	slots   chan struct{} // holds a token for each file that was asked for and not taken
	taken   int

	large chan []byte // the last one's header, where its end does not hold that
	last  *file       // the last one, if header has taken it
}

// lookInto begins to read the ends of files, and the header of the last, without which the others
// are nothing.
func (s *Source) lookInto(ctx context.Context, objects []objstore.Object) *ends {
	e := &ends{objects: objects, slots: make(chan struct{}, looks), large: make(chan []byte, 1)}
	ctx, e.cancel = context.WithCancel(ctx)
	e.g, e.ctx = group.WithContext(ctx)
	for range objects {
		e.files = append(e.files, make(chan *file, 1))
	}
	look := func(i int) {
		e.g.Go(func() error {
			defer close(e.files[i])
			f, err := s.look(e.ctx, objects[i])
			if err == nil {
				e.files[i] <- f
			}
			return err
		})
	}
	last := len(objects) - 1
	look(last)
	if o := objects[last]; o.Size > wholeBytes {
		e.g.Go(func() error {
			defer close(e.large)
			raw := make([]byte, ltx.HeaderSize)
			err := s.get(e.ctx, o, 0, raw)
			if err == nil {
				e.large <- raw
			}
			return err
		})
	}
	e.g.Go(func() error {
		for i := range last {
			select {
			case e.slots <- struct{}{}:
				look(i)
			case <-e.ctx.Done():
				return context.Cause(e.ctx)
			}
		}
		return nil
	})
	return e
}

// next returns the next file in the order of the plan.
func (e *ends) next() (*file, error) {
	i := e.taken
	if f := e.last; f != nil && i == len(e.files)-1 {
		return f, nil
	}
	select {
	case f, ok := <-e.files[i]:
		if !ok {
			return nil, e.failed()
		}
		if e.taken++; i < len(e.files)-1 {
			<-e.slots
		}
		return f, nil
	case <-e.ctx.Done():
		return nil, e.failed()
	}
}

// header returns the last file's. It is to be called before next.
func (e *ends) header() (ltx.Header, error) {
	i := len(e.files) - 1
	raw := []byte(nil)
	if e.objects[i].Size > wholeBytes {
		select {
		case raw = <-e.large:
		case <-e.ctx.Done():
		}
	} else {
		select {
		case f, ok := <-e.files[i]:
			if ok {
				e.last, raw = f, f.tail
			}
		case <-e.ctx.Done():
		}
	}
	if raw == nil {
		return ltx.Header{}, e.failed()
	}
	return parseHeader(e.objects[i], raw)
}

// failed waits for all, since one has failed, and returns the first error.
func (e *ends) failed() error {
	if err := e.g.Wait(); err != nil {
		return err
	}
	return context.Cause(e.ctx)
}

// close ends what is under way.
func (e *ends) close() {
	e.cancel()
	_ = e.g.Wait()
}
