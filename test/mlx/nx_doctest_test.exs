defmodule Mlx.NxDoctestTest do
  @moduledoc """
  The examples in the documentation of each of Nx's modules.

  Where `Mlx.DocDifferences` names a function, its examples are run one by one with
  `Mlx.DocExamples`: to the letter, but for those about which something is said there.
  """

  use ExUnit.Case, async: true
  alias Mlx.{DocDifferences, DocExamples}

  setup do
    Nx.default_backend(Mlx.Backend)
    :ok
  end

  # These need modules and processes; Nx doesn't run them at all.
  @serving {Nx.Serving, :moduledoc}

  @apart DocDifferences.apart()
  @excluded [@serving | @apart]

  # The examples of operators need them imported, and have a module of their own.
  for module <- DocExamples.modules() -- [Nx.Defn.Kernel] do
    doctest module, except: for({^module, function} <- @excluded, do: function)
  end

  for {module, function} <- @apart, {module, function} != @serving do
    examples = Enum.filter(DocExamples.examples(module), &(&1.function == function))
    options = Map.get(DocDifferences.all(), {module, function}, %{})

    if Map.keys(options) -- Enum.map(examples, & &1.number) != [],
      do: raise("there are no such examples of #{inspect({module, function, options})}")

    for %{number: number} = example <- examples do
      test "#{inspect(module)} #{inspect(function)} (#{number})" do
        example = unquote(Macro.escape(example))
        DocExamples.check(example, DocDifferences.options(example))
      end
    end
  end
end

defmodule Mlx.NxKernelDoctestTest do
  @moduledoc """
  The examples of the operators of `Nx.Defn`.
  """

  use ExUnit.Case, async: true
  use Nx.Defn.Kernel

  setup do
    Nx.default_backend(Mlx.Backend)
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
    Nx.global_default_backend(Mlx.Backend)
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
