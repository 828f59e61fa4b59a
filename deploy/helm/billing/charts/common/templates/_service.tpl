{{- /* A copy of deploy/helm/common, made by npm run test:deploy -- --vendor. Do not edit. */ -}}
{{/*
All resources of one service. The argument is a dict:
  root       the chart's context
  path       the first segment of the service's paths
  main       its program
  calls      environment variables with the URLs of other services: name to URL
  styled     whether it reads INTERACTION_STYLE
  extraEnv   more environment variables: name to value (optional)
  extraPaths more paths of its ingress (optional)
  secretEnv  environment variables from Secrets: name to {secret, key}; entries without a secret are skipped
*/}}
{{- define "trifold.service" -}}
{{- $root := .root -}}
{{- $name := include "trifold.fullname" $root -}}
{{- $values := $root.Values -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ $name }}
  labels: {{- include "trifold.labels" $root | nindent 4 }}
automountServiceAccountToken: false
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ $name }}
  labels: {{- include "trifold.labels" $root | nindent 4 }}
data: {{- include "trifold.environment" . | nindent 2 }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}
  labels: {{- include "trifold.labels" $root | nindent 4 }}
spec:
  type: ClusterIP
  selector:
    {{- include "trifold.selector" $root | nindent 4 }}
    app.kubernetes.io/component: service
  ports:
    - { name: http, port: 8000, targetPort: http, protocol: TCP }
---
{{ include "trifold.deployment" . }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $name }}
  labels: {{- include "trifold.labels" $root | nindent 4 }}
spec:
  maxUnavailable: {{ $values.podDisruptionBudget.maxUnavailable }}
  # A pod that is not ready serves no requests, so it must not block the drain of a node.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "trifold.selector" $root | nindent 6 }}
      app.kubernetes.io/component: service
{{- if $values.autoscaling.enabled }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ $name }}
  labels: {{- include "trifold.labels" $root | nindent 4 }}
spec:
  scaleTargetRef: { apiVersion: apps/v1, kind: Deployment, name: {{ $name }} }
  minReplicas: {{ $values.autoscaling.minReplicas }}
  maxReplicas: {{ $values.autoscaling.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: { type: Utilization, averageUtilization: {{ $values.autoscaling.cpuPercent }} }
{{- end }}
{{- if $values.ingress.enabled }}
---
{{ include "trifold.ingress" . }}
{{- end }}
{{- if $values.networkPolicy.enabled }}
---
{{ include "trifold.networkPolicy" . }}
{{- end }}
{{- if $values.database.internal }}
---
{{ include "trifold.database" . }}
{{- end }}
{{- end -}}

{{- define "trifold.environment" -}}
{{- $values := .root.Values -}}
{{- $env := dict
  "HOST" "0.0.0.0"
  "AUTH_OFF_ANYWHERE" "true"
  "PORT" "8000"
  "KAFKA_BROKERS" $values.kafka.brokers
  "LOG_LEVEL" $values.logLevel
  "BASE_PATH" ($values.ingress.basePath | default "/")
  "TRUSTED_PROXIES" "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7"
-}}
{{- if .styled -}}
{{- $_ := set $env "INTERACTION_STYLE" $values.interactionStyle -}}
{{- end -}}
{{- $all := merge (dict) $values.env .calls (.extraEnv | default dict) $env -}}
{{- range $key, $value := $all }}
{{ $key }}: {{ $value | toString | quote }}
{{- end }}
{{- end -}}

{{- define "trifold.deployment" -}}
{{- $root := .root -}}
{{- $name := include "trifold.fullname" $root -}}
{{- $values := $root.Values -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $name }}
  labels: {{- include "trifold.labels" $root | nindent 4 }}
spec:
  {{- if $values.autoscaling.enabled }}
  {{- /* An update without `replicas` would reset it to 1 until the autoscaler's next check. */}}
  {{- with lookup "apps/v1" "Deployment" $root.Release.Namespace $name }}
  replicas: {{ max .spec.replicas $values.autoscaling.minReplicas }}
  {{- end }}
  {{- else }}
  replicas: {{ $values.replicas }}
  {{- end }}
  revisionHistoryLimit: 5
  # A new pod is ready before an old one is removed.
  strategy:
    type: RollingUpdate
    rollingUpdate: { maxUnavailable: 0, maxSurge: 1 }
  selector:
    matchLabels:
      {{- include "trifold.selector" $root | nindent 6 }}
      app.kubernetes.io/component: service
  template:
    metadata:
      labels:
        {{- include "trifold.labels" $root | nindent 8 }}
        app.kubernetes.io/component: service
      annotations:
        checksum/config: {{ include "trifold.environment" . | sha256sum }}
        prometheus.io/scrape: 'true'
        prometheus.io/port: '8000'
        prometheus.io/path: /{{ .path }}/actuator/prometheus
    spec:
      serviceAccountName: {{ $name }}
      automountServiceAccountToken: false
      enableServiceLinks: false
      {{- with $values.imagePullSecrets }}
      imagePullSecrets: {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext: {{- include "trifold.podSecurity" 1000 | nindent 8 }}
      terminationGracePeriodSeconds: {{ $values.shutdown.graceSeconds }}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              {{- include "trifold.selector" $root | nindent 14 }}
              app.kubernetes.io/component: service
          matchLabelKeys: [pod-template-hash]
      containers:
        - name: {{ $root.Chart.Name }}
          image: {{ include "trifold.image" $root }}
          imagePullPolicy: {{ $values.image.pullPolicy }}
          command: [node, {{ .main }}]
          envFrom:
            - configMapRef: { name: {{ $name }} }
          env:
            - name: DATABASE_URL
              valueFrom:
                secretKeyRef:
                  {{- if $values.database.internal }}
                  name: {{ $name }}-database
                  key: url
                  {{- else }}
                  name: {{ required "database.existingSecret names the Secret of an external database" $values.database.existingSecret }}
                  key: {{ $values.database.existingSecretKey }}
                  {{- end }}
            {{- range $variable, $from := .secretEnv }}
            {{- if $from.secret }}
            - name: {{ $variable }}
              valueFrom:
                secretKeyRef: { name: {{ $from.secret }}, key: {{ $from.key }} }
            {{- end }}
            {{- end }}
          ports:
            - { name: http, containerPort: 8000, protocol: TCP }
          # The process listens at once, and is alive while it waits for its database, however long that takes.
          startupProbe:
            httpGet: { path: /{{ .path }}/actuator/health/liveness, port: http }
            periodSeconds: 2
            timeoutSeconds: 2
            failureThreshold: 30
          livenessProbe:
            httpGet: { path: /{{ .path }}/actuator/health/liveness, port: http }
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 3
          # Ready means started, migrated and not draining. Not /actuator/health/readiness, which is DOWN while the
          # broker or the database is down: all pods share these, so all would leave the Service at once, and with
          # them the style http, which needs no broker. A pod responds with 503 by itself when it has to.
          readinessProbe:
            httpGet: { path: /{{ .path }}/health, port: http }
            periodSeconds: 3
            timeoutSeconds: 3
            failureThreshold: 2
          lifecycle:
            # The pod keeps serving until proxies have removed it. `sleep` needs no shell in the image.
            preStop:
              sleep: { seconds: {{ $values.shutdown.preStopSeconds }} }
          resources: {{- toYaml $values.resources | nindent 12 }}
          securityContext: {{- include "trifold.containerSecurity" . | nindent 12 }}
          volumeMounts:
            - { name: data, mountPath: /data }
            - { name: tmp, mountPath: /tmp }
      volumes:
        - name: data
          emptyDir: { sizeLimit: 128Mi }
        - name: tmp
          emptyDir: { sizeLimit: 32Mi }
{{- end -}}
