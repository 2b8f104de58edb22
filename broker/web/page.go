package web

import (
	"bytes"
	"html/template"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token/problem"
)

// pageText is the page of a problem for people. It holds nothing but a row of the table of problems.
const pageText = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{.Code}}</title></head>
<body><h1>{{.Title}}</h1>
<p>{{.Cause}}</p>
<p><strong>{{.Remedy}}</strong></p>
<p>Code <code>{{.Code}}</code>, HTTP status {{.Status}}, exit status {{.Exit}}; asking again {{if .Retry}}may help{{else}}does not help{{end}}.</p>
</body></html>
`

// problemPage answers what a code means. It is for everybody, also without a certificate: it says nothing of this broker or of who asks.
func (s *Server) problemPage(w http.ResponseWriter, r *http.Request, code problem.Code) {
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime)); err != nil {
		s.log.Debug("no write deadline")
	}
	k := problem.Lookup(code)
	if k.Code != code {
		s.fail(w, r, problem.New(problem.NotFound, "There is no problem of that code"))
		return
	}
	page := api.ProblemPage{Code: k.Code, Number: k.Number, Status: k.HTTP, Exit: k.Exit, Retry: k.Retry == problem.Later, Title: k.Title, Cause: k.Cause(), Remedy: k.Remedy}
	if !strings.Contains(r.Header.Get("Accept"), "text/html") {
		s.write(w, r, http.StatusOK, page)
		return
	}
	var body bytes.Buffer
	if err := template.Must(template.New("problem").Parse(pageText)).Execute(&body, page); err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if _, err := w.Write(body.Bytes()); err != nil {
		s.log.Debug("a page was not taken", zap.Error(err))
	}
}
