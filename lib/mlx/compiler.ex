defmodule Mlx.Compiler do
  @moduledoc """
  The `Nx.Defn.Compiler` that turns a function into one program for MLX.

      Nx.Defn.jit(&fun/1, compiler: Mlx.Compiler)

  or for all functions of the current process, or of all processes:

      Nx.Defn.default_options(compiler: Mlx.Compiler)
      Nx.Defn.global_default_options(compiler: Mlx.Compiler)

  A function is walked once, and its program is kept. A call then costs one trip to the
  device's worker, however many operations there are, and returns at once: results are
  computed behind the caller's back until one is read, as with `Mlx.Backend`. The results
  are the same as without the compiler, bit for bit.

  ## Options

    * `:device` - `:cpu` or `:gpu`, `Mlx.Device.default/0` by default. Arguments that are
      elsewhere are copied.

    * `:stream` - a `Mlx.Stream` to run on, instead of that of `Mlx.Stream.with_stream/2` or
      the one that all share on a device. Functions of the host that a call runs are in a
      `with_stream/2` of it.

    * `:fuse` - let MLX compile chains of element-wise operations to single kernels. Results
      may differ in rounding. It pays where many small operations follow each other; the
      first call takes longer by as much as a second. On a CPU it needs the C++ compiler
      `g++` at run time; without one the program runs unfused, and a warning is logged once.
      `false` by default.

    * `:fallback` - what to do about an expression that can't be compiled: `:raise`, the
      default, raises `Mlx.Error`; `:evaluator` runs the function with
      `Nx.Defn.Evaluator`, and emits the event `[:mlx, :fallback]`.

    * `:cache` - whether to keep the program for the next call with the same function,
      options, and types and shapes of arguments. `true` by default. `Nx.Defn.compile/3`
      keeps the program in the function that it returns as well.

    * `:hooks` - a map of names to functions of one argument, in place of those of named
      `Nx.Defn.Kernel.io_call/3`. Empty by default; named calls without a function are left out.

    * `:debug_options` - a list of `print: true`, to print a program when it is compiled, and
      `dispatch: :sync`, to wait for the results of each call and so raise failures there.
      Empty by default.

    * `:max_concurrency` - in how many streams a `Nx.Serving` with `partitions: true` runs.
      `1` by default. With more, Nx may mix up the rows of a request that it divides between
      two batches, with any compiler. It divides none if all have the same number of rows, and
      `:batch_size` is a multiple of that.

    * `:garbage_collect` - whether to collect the garbage of the calling process after each
      call. `false` by default.

  Other options, and other values, raise `ArgumentError`, but for options that `Nx.Serving` and
  `Axon.build/2` have for themselves and pass on, such as `:mode`.

  ## Control flow

  `cond` waits for its predicate and runs one branch. `while` runs on the device's worker;
  one that counts, as loops over a range do, never waits for a condition.

  `Nx.Defn.Kernel.io_call/2`, `Nx.Defn.Kernel.print_value/2` and `Nx.runtime_call/4` divide
  a program: their functions run in the process that calls the compiled function, with the
  values computed up to there, and may use Nx themselves. Branches and loops that contain
  one are driven by that process, which then waits for each predicate.

  What several `cond`s share is computed once at most, and an `io_call` in it called when the
  first branch that is taken needs it. A `runtime_call` that they share is called before
  them, also if no branch needs it then, and so are the functions in a `cond` or `while` that
  they share.

  The guide [Compiling](compiling.html) says when compiling and fusing pay.

  ## Seeing what runs

      iex> Mlx.Compiler.program(fn x -> Nx.add(Nx.exp(x), x) end, [Nx.template({3}, :f32)])
      #Mlx.Compiler.Plan<
        [v1] = run [v0]
          r1 = exp(r0)
          r2 = add(r1, r0)
          => r2
      >

  """

  @behaviour Nx.Defn.Compiler

  alias Mlx.Compiler.{Cache, Closure, Executable, Fuse, Options, Plan}
  alias Nx.Defn.Composite

  @impl true
  def __to_backend__(opts) do
    {Mlx.Backend, [device: Options.new!(opts).device]}
  end

  @impl true
  def __partitions_options__(opts) do
    %Options{device: device, max_concurrency: count} = Options.new!(opts)

    if count == 1,
      do: [opts],
      else: for(_ <- 1..count, do: Keyword.put(opts, :stream, Mlx.Stream.new(device)))
  end

  @impl true
  def __jit__(key, vars, fun, args_list, opts) do
    run(compile(key, vars, fun, opts), args_list)
  end

  @impl true
  def __compile__(key, vars, fun, opts) do
    compiled = compile(key, vars, fun, opts)
    &run(compiled, &1)
  end

  defp run({_, options} = compiled, args_list) do
    on_stream(options, fn -> run_here(compiled, args_list) end)
  end

  @doc false
  # The copying of arguments and functions of the host are on the stream, too.
  def on_stream(%Options{stream: nil}, fun), do: fun.()
  def on_stream(%Options{stream: stream}, fun), do: Mlx.Stream.with_stream(stream, fun)

  defp run_here({{:evaluator, evaluator}, _options}, args_list), do: evaluator.(args_list)

  defp run_here({%Executable{} = executable, options}, args_list) do
    results = for args <- args_list, do: Executable.run(executable, args, options)
    if options.debug_options.dispatch == :sync, do: results |> List.to_tuple() |> Mlx.eval()
    if options.garbage_collect, do: :erlang.garbage_collect()
    results
  end

  defp compile(key, vars, fun, opts) do
    options = opts |> Options.new!() |> Fuse.prepare()
    metadata = %{function: key, device: options.device, fuse: options.fuse, cache: :off}

    compile = fn cache ->
      on_stream(options, fn ->
        compile_anew(key, vars, fun, options, %{metadata | cache: cache})
      end)
    end

    executable =
      if options.cache,
        do: fetch(cache_key(key, vars, options), metadata, compile),
        else: compile.(:off)

    {executable, options}
  end

  defp fetch(key, metadata, compile) do
    started = System.monotonic_time()

    case Cache.fetch(key, fn -> compile.(:miss) end) do
      {:hit, executable} ->
        Mlx.Telemetry.hit(%{metadata | cache: :hit}, started, nodes(executable))
        executable

      {:miss, executable} ->
        executable
    end
  end

  defp nodes(%Executable{nodes: nodes}), do: nodes
  defp nodes({:evaluator, _evaluator}), do: 0

  defp compile_anew(key, vars, fun, options, metadata) do
    executable = Mlx.Telemetry.compile(metadata, fn -> Executable.compile(fun, vars, options) end)
    if options.debug_options.print, do: IO.inspect(executable.plan)
    executable
  rescue
    error in Mlx.Error ->
      if options.fallback == :raise, do: reraise(error, __STACKTRACE__)
      Mlx.Telemetry.fallback(key, error)
      {:evaluator, Nx.Defn.Evaluator.__compile__(key, vars, fun, hooks: options.hooks)}
  end

  # Functions are equal if they are of one version of one module and have captured the
  # same; those captured by name are of whatever version there is.
  defp cache_key(key, vars, options) do
    signature =
      Enum.map(vars, fn var -> Composite.traverse(var, &signature/1) end)

    {Closure.key(key), version(key), signature, options.device, options.fuse, options.fallback,
     options.hooks}
  end

  # An argument may be a block of parameters, such as a quantized tensor.
  defp signature(%Nx.Tensor{data: %Nx.Defn.Expr{op: :block, args: [block, args | _]}}),
    do: {block, Enum.map(args, &signature/1)}

  defp signature(%Nx.Tensor{} = var),
    do: {var.type, var.shape, var.names, var.vectorized_axes, var.donatable?}

  defp version(fun) do
    case Function.info(fun, :type) do
      {:type, :external} ->
        {:module, module} = Function.info(fun, :module)
        module.module_info(:md5)

      {:type, :local} ->
        nil
    end
  end

  @doc """
  How many programs are kept, and how many may be before those go that have not run for the
  longest time.

  ## Examples

      iex> %{entries: _, limit: limit} = Mlx.Compiler.cache_info()
      iex> limit
      1024

  """
  @spec cache_info() :: %{entries: non_neg_integer, limit: pos_integer}
  def cache_info, do: Cache.info()

  @doc """
  Forgets all programs. Those that `Nx.Defn.compile/3` has returned stay.

  ## Examples

      iex> Mlx.Compiler.clear_cache()
      :ok

  """
  @spec clear_cache() :: :ok
  def clear_cache, do: Cache.clear()

  @doc """
  The program of a function for such arguments, to look at.

  Takes the options of this module. Arguments may be tensors or templates, or containers of
  them; the function is not run. Registers are `r0` and so on, and what the host gives and gets
  `v0` and so on. Raises `Mlx.Error` if the function can't be compiled.

  ## Examples

      iex> Mlx.Compiler.program(&Nx.sum/1, [Nx.template({2, 3}, :f32)])
      #Mlx.Compiler.Plan<
        [v1] = run [v0]
          r1 = sum(r0, [0, 1], false)
          => r1
      >

  """
  @spec program(fun, [Nx.Container.t() | Nx.Tensor.t()], keyword) :: Plan.t()
  def program(fun, args, opts \\ []) do
    {fun, vars, _templates, _flatten} = Nx.Defn.Compiler.to_lazy_params(fun, args)
    opts = Keyword.put(opts, :compiler, Executable)
    Nx.Defn.Compiler.__compile__(fun, vars, opts).plan
  end
end
