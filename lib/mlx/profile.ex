defmodule Mlx.Profile do
  @moduledoc """
  How long each instruction of a compiled function takes.

      Mlx.Profile.run(&MyModel.predict/2, [params, input])

  compiles the function as `Mlx.Compiler` does, and runs it one instruction at a time, each
  computed and waited for. The profile that it gives prints as a table, the instruction
  that took longest first:

      #Mlx.Profile<
        3 instructions on cpu; one by one 370.1 µs, as usual 339.3 µs
                µs      %    calls      bytes  instruction
             249.4   71.7        1      65536  exp(f32[128][128]) -> f32[128][128]
              77.5   22.3        1      65536  matmul(f32[128][128], f32[128][128]) -> f32[128][128]
              21.0    6.0        1        512  sum(f32[128][128]) -> f32[128]
      >

  `to_table/2` has more of it, and `save/2` writes a trace that https://ui.perfetto.dev and
  Chrome's `chrome://tracing` show.

  ## What the times mean

  Waiting costs some microseconds an instruction, and what MLX does side by side, joins or
  leaves out when it computes a whole program is lost. So the sum is more than the
  function takes otherwise: compare instructions with each other, and the whole with
  `:plain`. An instruction of which MLX only notes what it means, such as a reshape, takes
  little here and in earnest.

  What is in branches and loops is timed by itself, and has the way to it before its name:
  `while.body: add(…)`. Its time is part of the `while`'s, too, but not of the `while`'s
  own. Instructions of a branch that was not taken have no calls.

  With `fuse: true` a part that MLX compiled is one instruction, `fused`, that names what
  is in it; MLX doesn't tell more.

  ## Fields

    * `:function` - the function
    * `:device` - where it ran
    * `:result` - what it gave
    * `:instructions` - a list of `Mlx.Profile.Instruction`, each before those inside it
    * `:events` - a list of maps, one for each time that an instruction ran, in the order
      of their start: `:instruction`, its position in the list of those; `:start`, from the
      start of the function; and `:duration`
    * `:dropped` - how many events are not in the list, because it has 100,000 at most;
      the instructions have the times of these, too
    * `:duration` - of the run whose instructions were timed
    * `:plain` - of a run as usual, or `nil` with `warm_up: 0`

  Times are nanoseconds.
  """

  alias Mlx.Compiler.{Executable, Options}
  alias Mlx.Profile
  alias Mlx.Profile.{Instruction, Recorder}

  @enforce_keys [:function, :device, :result, :instructions, :events, :dropped, :duration, :plain]
  defstruct @enforce_keys

  @type t :: %__MODULE__{
          function: fun,
          device: Mlx.Device.t(),
          result: Nx.Container.t() | Nx.Tensor.t(),
          instructions: [Instruction.t()],
          events: [
            %{
              instruction: non_neg_integer,
              start: non_neg_integer,
              duration: non_neg_integer
            }
          ],
          dropped: non_neg_integer,
          duration: non_neg_integer,
          plain: non_neg_integer | nil
        }

  @doc """
  Runs a function with the arguments and times its instructions.

  ## Options

  Those of `Mlx.Compiler`, and

    * `:warm_up` - how often to run it as usual before, `2` by default. The first time MLX
      compiles kernels and takes memory; the last time gives `:plain`.

  `:cache`, `:fallback`, `:garbage_collect` and `:debug_options` have no effect: the
  function is compiled for this, and what can't be compiled raises `Mlx.Error`. Functions
  of the host, such as those of `io_call`, are called in each run. Arguments are not
  donated.

  ## Examples

      iex> x = Nx.iota({3}, type: :f32)
      iex> profile = Mlx.Profile.run(fn x -> Nx.exp(Nx.multiply(x, x)) end, [x])
      iex> for instruction <- profile.instructions, do: instruction.op
      ["multiply", "exp"]
      iex> Enum.map(profile.instructions, & &1.results)
      [[{"f32", {3}}], [{"f32", {3}}]]
      iex> Enum.sum(Enum.map(profile.instructions, & &1.own)) <= profile.duration
      true

  """
  @spec run(fun, [Nx.Container.t() | Nx.Tensor.t()], keyword) :: t
  def run(fun, args, opts \\ []) when is_function(fun) and is_list(args) and is_list(opts) do
    {warm_up, opts} = Keyword.pop(opts, :warm_up, 2)
    check_warm_up!(warm_up)
    {traced, vars, _templates, values} = Nx.Defn.Compiler.to_lazy_params(fun, args)
    options = Options.new!(opts)

    Mlx.Compiler.on_stream(options, fn ->
      compiler = Keyword.put(opts, :compiler, Executable)
      executable = Nx.Defn.Compiler.__compile__(traced, vars, compiler)
      measure(%{executable | donated: []}, values, options, warm_up, fun)
    end)
  end

  defp measure(executable, values, options, warm_up, fun) do
    plain = warm_up(executable, values, options, warm_up)

    {result, instructions, events, dropped, duration} =
      Recorder.record(executable.plan, &Executable.run(%{executable | plan: &1}, values, options))

    %Profile{
      function: fun,
      device: options.device,
      result: result,
      instructions: instructions,
      events: events,
      dropped: dropped,
      duration: duration,
      plain: plain
    }
  end

  defp check_warm_up!(count) when is_integer(count) and count >= 0, do: :ok

  defp check_warm_up!(other) do
    raise ArgumentError, "the option :warm_up is a number of runs, got: #{inspect(other)}"
  end

  defp warm_up(executable, values, options, count) do
    run = fn -> Mlx.eval({Executable.run(executable, values, options)}) end
    times = for _ <- 1..count//1, do: run |> :timer.tc(:nanosecond) |> elem(0)
    List.last(times)
  end

  @doc """
  The profile as a table.

  ## Options

    * `:sort` - `:own`, the default, to have first what took longest without what is
      inside it, or `:program` for the order in which the program has them
    * `:limit` - how many lines to have, `:infinity` by default; the rest is a line more

  ## Examples

      iex> profile = Mlx.Profile.run(fn x -> Nx.exp(x) end, [Nx.iota({3}, type: :f32)])
      iex> [head, line] = profile |> Mlx.Profile.to_table() |> String.split("\\n", trim: true)
      iex> String.split(head)
      ["µs", "%", "calls", "bytes", "instruction"]
      iex> line =~ "100.0        1         12  exp(f32[3]) -> f32[3]"
      true

  """
  @spec to_table(t, keyword) :: String.t()
  defdelegate to_table(profile, opts \\ []), to: Mlx.Profile.Table, as: :new

  @doc """
  The profile in the Trace Event Format, as JSON.

  ## Examples

      iex> profile = Mlx.Profile.run(fn x -> Nx.exp(x) end, [Nx.iota({3}, type: :f32)])
      iex> Mlx.Profile.to_chrome_trace(profile) =~ ~s("name":"exp")
      true

  """
  @spec to_chrome_trace(t) :: String.t()
  def to_chrome_trace(%Profile{} = profile) do
    instructions = List.to_tuple(profile.instructions)
    events = Enum.map(profile.events, &trace_event(&1, elem(instructions, &1.instruction)))
    metadata = %{ph: "M", name: "process_name", pid: 1, tid: 1, args: %{name: title(profile)}}

    %{displayTimeUnit: "ns", traceEvents: [metadata | events]}
    |> JSON.encode!()
    |> IO.iodata_to_binary()
  end

  # The format has microseconds.
  defp trace_event(event, %Instruction{} = instruction) do
    %{
      ph: "X",
      cat: "mlx",
      name: instruction.op,
      pid: 1,
      tid: 1,
      ts: event.start / 1000,
      dur: event.duration / 1000,
      args: %{
        instruction: event.instruction,
        path: Enum.join(instruction.path, "."),
        operands: Enum.map(instruction.operands, &Mlx.Profile.Table.signature/1),
        results: Enum.map(instruction.results, &Mlx.Profile.Table.signature/1),
        bytes: instruction.bytes,
        fused: instruction.fused
      }
    }
  end

  defp title(profile), do: "#{inspect(profile.function)} on #{profile.device}"

  @doc """
  Writes the trace of `to_chrome_trace/1` to a file, for https://ui.perfetto.dev or
  `chrome://tracing`.

  Raises `File.Error` if it can't be written.

  ## Examples

      iex> path = Path.join(System.tmp_dir!(), "mlx_profile_doctest.json")
      iex> profile = Mlx.Profile.run(fn x -> Nx.exp(x) end, [Nx.iota({3}, type: :f32)])
      iex> Mlx.Profile.save(profile, path)
      :ok
      iex> File.rm!(path)
      :ok

  """
  @spec save(t, Path.t()) :: :ok
  def save(%Profile{} = profile, path), do: File.write!(path, to_chrome_trace(profile))
end

defimpl Inspect, for: Mlx.Profile do
  @lines 20

  def inspect(profile, _opts) do
    plain = if profile.plain, do: ", as usual #{us(profile.plain)} µs"
    count = length(profile.instructions)

    """
    #Mlx.Profile<
      #{count} instructions on #{profile.device}; one by one #{us(profile.duration)} µs#{plain}
    #{profile |> Mlx.Profile.to_table(limit: @lines) |> indent()}>\
    """
  end

  defp us(nanoseconds), do: :erlang.float_to_binary(nanoseconds / 1000, decimals: 1)
  defp indent(table), do: String.replace(table, ~r/^(?=.)/m, "  ")
end
