{{/* A small PostgreSQL for one service, on a volume that outlives the release. */}}
{{- define "trifold.database" -}}
{{- $root := .root -}}
{{- $service := include "trifold.fullname" $root -}}
{{- $name := printf "%s-database" $service -}}
{{- $database := $root.Values.database -}}
{{- $there := lookup "v1" "Secret" $root.Release.Namespace $name -}}
{{- $password := randAlphaNum 32 -}}
{{- with $there -}}{{- $password = index .data "password" | b64dec -}}{{- end -}}
apiVersion: v1
kind: Secret
metadata:
  name: {{ $name }}
  labels: {{- include "trifold.labels" $root | nindent 4 }}
  annotations:
    # Kept, like the volume, when the release is uninstalled: the next install needs both, because the volume's
    # PostgreSQL has this password.
    helm.sh/resource-policy: keep
type: Opaque
stringData:
  password: {{ $password }}
  url: postgres://trifold:{{ $password }}@{{ $name }}:5432/{{ .path }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}
  labels: {{- include "trifold.labels" $root | nindent 4 }}
spec:
  clusterIP: None
  selector:
    {{- include "trifold.selector" $root | nindent 4 }}
    app.kubernetes.io/component: database
  ports:
    - { name: postgresql, port: 5432, targetPort: postgresql, protocol: TCP }
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ $name }}
  labels: {{- include "trifold.labels" $root | nindent 4 }}
spec:
  serviceName: {{ $name }}
  replicas: 1
  selector:
    matchLabels:
      {{- include "trifold.selector" $root | nindent 6 }}
      app.kubernetes.io/component: database
  template:
    metadata:
      labels:
        {{- include "trifold.labels" $root | nindent 8 }}
        app.kubernetes.io/component: database
    spec:
      serviceAccountName: {{ $service }}
      automountServiceAccountToken: false
      enableServiceLinks: false
      # The user `postgres` of the official image.
      securityContext: {{- include "trifold.podSecurity" 999 | nindent 8 }}
      # The image stops on SIGINT, PostgreSQL's fast shutdown: it ends connections and writes a checkpoint.
      terminationGracePeriodSeconds: 60
      containers:
        - name: postgresql
          image: {{ $database.image.repository }}:{{ $database.image.tag }}
          imagePullPolicy: IfNotPresent
          env:
            - { name: POSTGRES_USER, value: trifold }
            - { name: POSTGRES_DB, value: {{ .path }} }
            - { name: PGDATA, value: /var/lib/postgresql/data/pgdata }
            - name: POSTGRES_PASSWORD
              valueFrom:
                secretKeyRef: { name: {{ $name }}, key: password }
          ports:
            - { name: postgresql, containerPort: 5432, protocol: TCP }
          # Over TCP, because during initialization the image runs a temporary server on the Unix socket only.
          startupProbe:
            exec: { command: [pg_isready, --host=127.0.0.1, --username=trifold, --dbname={{ .path }}] }
            periodSeconds: 3
            timeoutSeconds: 3
            failureThreshold: 60
          readinessProbe:
            exec: { command: [pg_isready, --host=127.0.0.1, --username=trifold, --dbname={{ .path }}] }
            periodSeconds: 5
            timeoutSeconds: 3
          livenessProbe:
            tcpSocket: { port: postgresql }
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          resources: {{- toYaml $database.resources | nindent 12 }}
          securityContext: {{- include "trifold.containerSecurity" . | nindent 12 }}
          volumeMounts:
            - { name: data, mountPath: /var/lib/postgresql/data }
            - { name: run, mountPath: /var/run/postgresql }
            - { name: tmp, mountPath: /tmp }
      volumes:
        - name: run
          emptyDir: { sizeLimit: 16Mi }
        - name: tmp
          emptyDir: { sizeLimit: 64Mi }
  volumeClaimTemplates:
    - metadata:
        name: data
        labels:
          {{- include "trifold.selector" $root | nindent 10 }}
          app.kubernetes.io/part-of: trifold
      spec:
        accessModes: [ReadWriteOnce]
        {{- with $database.storage.className }}
        storageClassName: {{ . }}
        {{- end }}
        resources: { requests: { storage: {{ $database.storage.size }} } }
{{- if $root.Values.networkPolicy.enabled }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ $name }}
  labels: {{- include "trifold.labels" $root | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "trifold.selector" $root | nindent 6 }}
      app.kubernetes.io/component: database
  policyTypes: [Ingress, Egress]
  ingress:
    - from:
        - podSelector:
            matchLabels:
              {{- include "trifold.selector" $root | nindent 14 }}
              app.kubernetes.io/component: service
      ports:
        - { protocol: TCP, port: 5432 }
  egress: []
{{- end }}
{{- end -}}
