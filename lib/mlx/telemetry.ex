defmodule Mlx.Telemetry do
  @moduledoc """
  The telemetry events of Mlx.

  ## Spans

  A span is one of `:telemetry.span/3`: `:start`, `:stop` and `:exception` are appended to
  its name. All three have the same metadata; `:exception` adds `:kind`, `:reason` and
  `:stacktrace`. `:start` has the measurements `:system_time` and `:monotonic_time`, the
  others `:duration` and `:monotonic_time`, in native time units.

  | event | when | metadata |
  |---|---|---|
  | `[:mlx, :eval, …]` | `Mlx.eval/1` waits for tensors | `:tensors`, `:byte_size`, `:devices` |
  | `[:mlx, :to_binary, …]` | a tensor's values are read | `:shape`, `:type`, `:byte_size`, `:device` |
  | `[:mlx, :compile, …]` | `Mlx.Compiler` compiles a function | `:function`, `:device`, `:fuse`, `:cache` |

  Reading waits for everything the tensor depends on, so the duration is that of the
  computation not yet done, and of moving the values to the host. `:cache` is `:miss`, or
  `:off` with `cache: false`. `[:mlx, :compile, :stop]` has one more measurement, `:nodes`:
  the instructions of the programs, those of branches and loops included.

  ## Single events

  | event | when | measurements | metadata |
  |---|---|---|---|
  | `[:mlx, :compile, :hit]` | `Mlx.Compiler` finds a function compiled | `:duration`, `:nodes` | `:function`, `:device`, `:fuse`, `:cache`, which is `:hit` |
  | `[:mlx, :fallback]` | a function runs with `Nx.Defn.Evaluator` instead | `:system_time` | `:function`, `:op`, `:error` |
  | `[:mlx, :stream]` | `execute_streams/0` is called | `:queue_depth` | `:stream`, `:device` |
  | `[:mlx, :memory]` | `execute_memory/0` is called | those of `Mlx.Memory.stats/0` | none |
  | `[:mlx, :generation, :start]` | `Mlx.Generation` is asked for the first token | `:system_time` | `:rows`, `:prompt_tokens` |
  | `[:mlx, :generation, :first_token]` | it is there | `:duration`, `:prompt_tokens_per_second` | the same |
  | `[:mlx, :generation, :stop]` | the last one is, or nobody wants more | those of `t:Mlx.Generation.summary/0` | the same |
  | `[:mlx, :generation, :exception]` | it fails | `:duration` | the same, `:kind`, `:reason`, `:stacktrace` |

  The duration of a hit is that of looking, and of waiting where another process is just
  compiling the function. A function that `Nx.Defn.compile/3` has returned looks no more.
  A fallback happens only with `fallback: :evaluator`; `:op` is what can't be compiled.

  Prompt tokens per second are those of all rows until the first token, `:tokens_per_second` of
  the last event those of all rows after it. A generation that fails has no `:stop`, and may have
  been compiling, which is in its times, too.

  Those of streams and memory tell of now and happen only if someone asks. `:telemetry_poller` asks at
  intervals:

      children = [
        {:telemetry_poller,
         measurements: [
           {Mlx.Telemetry, :execute_streams, []},
           {Mlx.Telemetry, :execute_memory, []}
         ],
         period: :timer.seconds(10)}
      ]

  ## What it costs

  No event belongs to a single operation of Nx, so operations cost the same with and
  without it. Where nobody listens, the two events of a span take 0.4 µs together, and that
  of a hit 0.1 µs; `mix mlx.bench --only telemetry` measures it.

  ## Example

      :telemetry.attach(
        "slow reads",
        [:mlx, :to_binary, :stop],
        fn _event, %{duration: duration}, metadata, _config ->
          IO.inspect({System.convert_time_unit(duration, :native, :microsecond), metadata})
        end,
        nil
      )

  """

  import Kernel, except: [byte_size: 1]

  @doc """
  Logs the events of Mlx, one line each.

  A line has what the event measured and what it is about, such as

      mlx.to_binary took 532 µs: f32[128][256], 131072 bytes, cpu

  Starts of spans are not logged.

  ## Options

    * `:level` - the level of the lines, `:debug` by default. Those of fallbacks and of
      exceptions are warnings.
    * `:events` - which to log, by default all: a list of `:eval`, `:to_binary`,
      `:compile`, `:fallback`, `:stream`, `:memory` and `:generation`

  Gives `{:error, :already_exists}` if the logger is attached. Raises `ArgumentError` if an
  option is none of these.

  ## Examples

      iex> Mlx.Telemetry.attach_default_logger(level: :info, events: [:compile, :fallback])
      :ok
      iex> Mlx.Telemetry.attach_default_logger()
      {:error, :already_exists}
      iex> Mlx.Telemetry.detach_default_logger()
      :ok

  """
  @spec attach_default_logger(keyword) :: :ok | {:error, :already_exists}
  defdelegate attach_default_logger(opts \\ []), to: Mlx.Telemetry.Logger, as: :attach

  @doc """
  Stops logging what `attach_default_logger/1` logs.

  Gives `{:error, :not_found}` if it is not attached.

  ## Examples

      iex> Mlx.Telemetry.detach_default_logger()
      {:error, :not_found}

  """
  @spec detach_default_logger() :: :ok | {:error, :not_found}
  defdelegate detach_default_logger, to: Mlx.Telemetry.Logger, as: :detach

  @doc """
  Tells how much work each stream has that someone holds, with an event `[:mlx, :stream]`
  for each.

  `:queue_depth` counts the jobs that wait or are being run: an eager operation, a call of
  a compiled function, or a read. What has run may still be lazy, and not be computed. The
  `:stream` is the name of its thread, as the system's tools show it.

  ## Examples

      iex> Mlx.Telemetry.execute_streams()
      :ok

  """
  @spec execute_streams() :: :ok
  def execute_streams do
    for {stream, device, depth} <- Mlx.Native.stream_queue_depths() do
      metadata = %{stream: stream, device: device}
      :telemetry.execute([:mlx, :stream], %{queue_depth: depth}, metadata)
    end

    :ok
  end

  @doc """
  Tells what `Mlx.Memory.stats/0` gives, with an event `[:mlx, :memory]`.

  ## Examples

      iex> Mlx.Telemetry.execute_memory()
      :ok

  """
  @spec execute_memory() :: :ok
  def execute_memory, do: :telemetry.execute([:mlx, :memory], Mlx.Memory.stats(), %{})

  @doc false
  def span(event, %Nx.Tensor{data: data, type: type} = tensor, fun) do
    shape = Mlx.Backend.whole_shape(tensor)

    metadata = %{shape: shape, type: type, byte_size: byte_size(tensor), device: data.device}
    :telemetry.span([:mlx, event], metadata, fn -> {fun.(), metadata} end)
  end

  @doc false
  def eval(tensors, fun) do
    bytes = tensors |> Enum.map(&byte_size/1) |> Enum.sum()
    devices = tensors |> Enum.map(& &1.data.device) |> Enum.uniq()
    metadata = %{tensors: length(tensors), byte_size: bytes, devices: devices}
    :telemetry.span([:mlx, :eval], metadata, fn -> {fun.(), metadata} end)
  end

  defp byte_size(%Nx.Tensor{type: {_, bits}} = tensor) do
    div(Tuple.product(Mlx.Backend.whole_shape(tensor)) * bits + 7, 8)
  end

  @doc false
  # What `fun` compiles has `nodes`.
  def compile(metadata, fun) do
    :telemetry.span([:mlx, :compile], metadata, fn ->
      compiled = fun.()
      {compiled, %{nodes: compiled.nodes}, metadata}
    end)
  end

  @doc false
  def hit(metadata, started, nodes) do
    measurements = %{duration: System.monotonic_time() - started, nodes: nodes}
    :telemetry.execute([:mlx, :compile, :hit], measurements, metadata)
  end

  @doc false
  def fallback(function, error) do
    metadata = %{function: function, op: error.op, error: error}
    :telemetry.execute([:mlx, :fallback], %{system_time: System.system_time()}, metadata)
  end
end
