defmodule Mlx.NxDoctestTest do
  @moduledoc """
  The examples in the documentation of each of Nx's modules.

  Where a function is named in this file, its examples are run one by one with
  `Mlx.DocExamples`: to the letter, but for those about which something is said here.
  """

  use ExUnit.Case, async: true
  alias Mlx.DocExamples

  setup do
    Nx.default_backend({Mlx.Backend, device: :cpu})
    :ok
  end

  # How far apart the digits of an example may be, in units of the last place, by the
  # number of the example in the documentation of the function.
  @digits %{
    # Each library of elementary functions has its own last digit.
    {Nx, {:erfc, 1}} => %{2 => [ulps: 2]},
    {Nx, {:log1p, 1}} => %{2 => [ulps: 1]},
    {Nx, {:sin, 1}} => %{2 => [ulps: 2]},
    {Nx.Random, {:normal, 4}} => %{1 => [ulps: 1], 3 => [ulps: 2], 4 => [ulps: 2]},
    {Nx.Random, {:multivariate_normal, 4}} => %{2 => [ulps: 2], 4 => [ulps: 2]},
    # Sums of products are rounded in another order.
    {Nx.LinAlg, {:cholesky, 1}} => %{2 => [ulps: 8], 5 => [ulps: 8]},
    {Nx.LinAlg, {:determinant, 1}} => %{7 => [ulps: 1]},
    {Nx.LinAlg, {:lu, 1}} => %{3 => [ulps: 1]},
    {Nx.LinAlg, {:solve, 2}} => %{4 => [ulps: 5]},
    {Nx.LinAlg, {:svd, 2}} => %{2 => [ulps: 1]},
    # Errors of the last digit grow with the condition of the matrix, those of what is
    # printed, too: the true numbers are -110.375, 76.875, 92.25 and -64.25; 4, -1, -3
    # and 1; 1 and 0; 1 and -0.95; -1/18, 1/9 and 5/18.
    {Nx.LinAlg, {:matrix_power, 2}} => %{6 => [ulps: 35]},
    {Nx.LinAlg, {:pinv, 2}} => %{5 => [ulps: 150], 6 => [ulps: 1]},
    {Nx.LinAlg, {:least_squares, 3}} => %{
      1 => [ulps: 5, scale: 1.0],
      2 => [ulps: 5],
      3 => [ulps: 40]
    },
    # Of the second matrix two eigenvalues are equal, so that their vectors are not
    # unique; what they make up is.
    {Nx.LinAlg, {:eigh, 2}} => %{
      2 => [through: %{"eigenvecs" => :made_up_of}, ulps: 4, scale: 3.0],
      3 => [ulps: 2],
      4 => [ulps: 2]
    }
  }

  # Where Mlx says that it is different, and what it gives.
  @different %{
    # MLX has no c128.
    {Nx.Constants, {:i, 2}} => %{2 => [instead: :unsupported_type]},
    # Nobody waits for the result, so there is nobody to raise to.
    {Nx.LinAlg, {:triangular_solve, 3}} => %{15 => [instead: :nan]},
    # The container has a tensor in it, and the example compares references.
    {Nx.Defn.Composite, {:flatten_list, 2}} => %{2 => []}
  }

  # These need modules and processes; Nx doesn't run them at all.
  @serving {Nx.Serving, :moduledoc}

  @apart Map.merge(@digits, @different)
  @excluded [@serving | Map.keys(@apart)]

  # The examples of operators need them imported, and have a module of their own.
  for module <- DocExamples.modules() -- [Nx.Defn.Kernel] do
    doctest module, except: for({^module, function} <- @excluded, do: function)
  end

  for {{module, function}, options} <- @apart do
    examples = Enum.filter(DocExamples.examples(module), &(&1.function == function))

    if Map.keys(options) -- Enum.map(examples, & &1.number) != [],
      do: raise("there are no such examples of #{inspect({module, function, options})}")

    for %{number: number} = example <- examples do
      test "#{inspect(module)} #{inspect(function)} (#{number})" do
        options = unquote(Macro.escape(options[number] || []))
        DocExamples.check(unquote(Macro.escape(example)), Enum.map(options, &named/1))
      end
    end
  end

  # Attributes can't hold these functions.
  defp named({:through, functions}) do
    {:through,
     Map.new(functions, fn {code, name} -> {code, &apply(__MODULE__, name, [&1, &2])} end)}
  end

  defp named({:instead, name}), do: {:instead, &apply(__MODULE__, name, [&1])}
  defp named(option), do: option

  def made_up_of(vectors, variables) do
    values = Nx.round(variables[:eigenvals])
    vectors |> Nx.multiply(values) |> Nx.dot(Nx.transpose(vectors))
  end

  def unsupported_type(step) do
    assert %Mlx.Error{kind: :type} = catch_error(step.())
  end

  def nan(step) do
    assert Nx.to_flat_list(step.()) == [:nan, :nan, :nan, :nan]
  end
end

defmodule Mlx.NxKernelDoctestTest do
  @moduledoc """
  The examples of the operators of `Nx.Defn`.
  """

  use ExUnit.Case, async: true
  use Nx.Defn.Kernel

  setup do
    Nx.default_backend({Mlx.Backend, device: :cpu})
    :ok
  end

  doctest Nx.Defn.Kernel
end

defmodule Mlx.NxServingDoctestTest do
  @moduledoc """
  The examples of `Nx.Serving`, which need modules and a process that are defined between
  them. Their tensors are printed before they are returned.
  """

  use ExUnit.Case
  import ExUnit.CaptureIO
  alias Mlx.DocExamples

  # Nx doesn't run these. Integers were s64 when they were written, and a tuple of an atom
  # and a tensor was printed.
  @outdated [{"s64", "s32"}, {~r/\{:debug, ([^}]*)\}/, "\\1"}]

  setup_all do
    for "defmodule" <> _ = code <- DocExamples.code(Nx.Serving) do
      # The second lacks this.
      DocExamples.run([], "import Nx.Defn, warn: false\n" <> update(code))
    end

    :ok
  end

  setup do
    Nx.global_default_backend({Mlx.Backend, device: :cpu})
    on_exit(fn -> Nx.global_default_backend(Nx.BinaryBackend) end)
  end

  for %{function: :moduledoc, number: number} = example <- DocExamples.examples(Nx.Serving) do
    test "(#{number})" do
      Enum.reduce(unquote(Macro.escape(example.steps)), [], fn {code, printed}, variables ->
        {{value, variables}, shown} = with_io(fn -> run(code, variables) end)

        if printed do
          shown = shown <> inspect(value)
          assert DocExamples.squeeze(shown) == DocExamples.squeeze(update(printed))
        end

        variables
      end)
    end
  end

  # What a process prints goes where its parent printed when it was started.
  defp run(code, variables) do
    if code =~ "batched_run", do: start()
    DocExamples.run(variables, code)
  end

  defp start do
    code = Enum.find(DocExamples.code(Nx.Serving), &String.starts_with?(&1, "children ="))
    [children, _supervisor] = String.split(code, "\n\n", parts: 2)
    {children, _variables} = DocExamples.run([], children)
    {:ok, _} = Supervisor.start_link(children, strategy: :one_for_one)
  end

  defp update(text) do
    Enum.reduce(@outdated, text, fn {old, new}, text -> String.replace(text, old, new) end)
  end
end
